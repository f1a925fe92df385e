package enrol_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/enrol/enroltest"
)

// TestFailover: while the first CA's breaker is open, the devices that list the
// second one's anchor get their certificates there, and the others wait. What
// is open at the first waits, unless its device's certificate ends before.
func TestFailover(t *testing.T) {
	t.Parallel()
	s := newSite(t, 6)
	second := must[*enroltest.CA](t)(enroltest.NewCA("second CA", func() time.Time { return s.now }))
	spare := s.Runner(s.runner.Policy)
	spare.CA, spare.CAName = second, "second"
	f := &enrol.Failover{Runners: []*enrol.Runner{s.runner, spare}, Share: 0.1}
	for _, name := range s.Names[:5] {
		s.Devices[name].Anchors = [][32]byte{sha256.Sum256(s.CA.Anchor()), sha256.Sum256(second.Anchor())}
	}
	run := func(i int) enrol.Result { return f.Run(context.Background(), s.Names[i], true) }
	for i := range s.Names {
		if r := run(i); r.Outcome != enrol.OutcomeRenewed || r.Enrolment.CA != enroltest.CAName {
			t.Fatalf("%s: %v", r.Outcome, r.Err)
		}
	}
	s.now = s.now.Add(10 * time.Hour)
	s.CA.Err = enrol.ErrCAUnavailable
	for i := range 3 { // these open the breaker, and have an open enrolment
		if r := run(i); r.Outcome != enrol.OutcomePending {
			t.Fatalf("%s: %v", r.Outcome, r.Err)
		}
	}
	if r := run(3); r.Outcome != enrol.OutcomeRenewed || r.Enrolment.CA != "second" {
		t.Errorf("%s: %v", r.Outcome, r.Err)
	}
	if r := run(5); r.Outcome != enrol.OutcomePending || !errors.Is(r.Err, enrol.ErrNotAsked) {
		t.Errorf("a device that does not know the second CA: %s: %v", r.Outcome, r.Err)
	}
	if r := run(0); r.Outcome != enrol.OutcomePending || r.Enrolment.CA != enroltest.CAName {
		t.Errorf("an open enrolment with time to wait: %s: %v", r.Outcome, r.Err)
	}
	for s.now.Before(s.Store.Devices()[0].Certificate.NotAfter.Add(-2 * time.Hour)) {
		s.now = s.breaker().Until
		run(1) // finds it down again
	}
	if r := run(0); r.Outcome != enrol.OutcomeRenewed || r.Enrolment.CA != "second" {
		t.Errorf("an open enrolment without time to wait: %s: %v", r.Outcome, r.Err)
	}
	s.CA.Err = nil
	s.now = s.breaker().Until
	if r := run(4); r.Outcome != enrol.OutcomeRenewed || r.Enrolment.CA != enroltest.CAName {
		t.Errorf("the first CA is back: %s: %v", r.Outcome, r.Err)
	}
}
