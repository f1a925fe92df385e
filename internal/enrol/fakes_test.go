package enrol_test

import (
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/enrol/enroltest"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// killed is what a cut panics with: the process dies there.
type killed struct{}

// world is a CLM, one device and one CA, without network and disk. A cut kills
// the process at the n-th point, counted over the effects of all three.
type world struct {
	t      *testing.T
	now    time.Time
	master *ibc.MasterSecret
	device *enroltest.Device
	ca     *enroltest.CA
	prober *prober
	store  enrol.Store
	queue  enrol.DeliveryStore
	health enrol.HealthStore
	runner *enrol.Runner

	points int // passed so far
	cut    int // the point that kills; 0: none
}

func (w *world) point() {
	w.points++
	if w.points == w.cut {
		panic(killed{})
	}
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// newCA returns a CA that may be cut.
func newCA(w *world, name string) *enroltest.CA {
	w.t.Helper()
	ca := must[*enroltest.CA](w.t)(enroltest.NewCA(name, func() time.Time { return w.now }))
	ca.Point = w.point
	return ca
}
