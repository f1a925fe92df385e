package e2e

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/renewal"
	"github.com/edgeclm/edgeclm/internal/store"
)

var (
	realFleet = flag.Int("real-fleet", 24, "devices of TestDays")
	realDays  = flag.Int("real-days", 3, "days of TestDays, at least 3")
)

// days is the real stack (agents, DTLS, SCEP, SQLite), whose clocks are put
// forward by hand, and a CLM that cron starts every half hour.
type days struct {
	*plant
	nodes   []*node
	begin   time.Time
	down    atomic.Bool          // the CA
	off     map[*node]time.Time  // until when a device is switched off
	away    map[string]time.Time // until when it cannot be renewed
	renewed int
	expired map[string]bool
}

// step is the time between two passes.
const step = 30 * time.Minute

// downCA is a CA that cannot be had at times.
type downCA struct {
	enrol.CA
	down *atomic.Bool
}

func (ca downCA) Submit(ctx context.Context, s enrol.Submission) (enrol.Answer, error) {
	if ca.down.Load() {
		return enrol.Answer{}, fmt.Errorf("%w: connection refused", enrol.ErrCAUnavailable)
	}
	return ca.CA.Submit(ctx, s)
}

func newDays(t *testing.T, devices int) *days {
	d := &days{plant: newPlant(t), off: map[*node]time.Time{}, away: map[string]time.Time{}, expired: map[string]bool{}}
	d.begin = d.clmClock.now()
	d.limits = unlimited()
	d.runner.Policy = enrol.DefaultPolicy()
	d.runner.CA = downCA{d.runner.CA, &d.down}
	d.runner.Health, d.runner.Planned, d.runner.Sightings = d.store, d.store, d.store
	addresses := map[string]string{}
	for i := range devices {
		n := d.provision(fmt.Sprintf("plc-%02d", i), fleet.ECDSAP256)
		n.serve()
		d.nodes = append(d.nodes, n)
		addresses[n.name] = n.addr
	}
	// Behind its address is another device: whoever answers is not it.
	addresses["plc-99"] = d.nodes[0].addr
	d.away["plc-99"] = d.begin.AddDate(1, 0, 0)
	d.commission(addresses)
	return d
}

// forward puts every clock forward.
func (d *days) forward(by time.Duration) {
	d.clmClock.offset.Add(int64(by))
	d.caClock.offset.Add(int64(by))
	for _, n := range d.nodes {
		n.clock.offset.Add(int64(by))
	}
}

// Started implements renewal.Observer.
func (*days) Started(string) {}

// Finished implements renewal.Observer.
func (*days) Finished(enrol.Result) {}

// Ticked implements renewal.Observer.
func (*days) Ticked(renewal.Tick) {}

// pass is one run of cron.
func (d *days) pass() renewal.Pass {
	d.t.Helper()
	ctx := context.Background()
	now := d.clmClock.now()
	jobs, err := d.store.DueJobs(ctx, store.Filter{}, now, d.runner.Policy.LongestWait())
	if err != nil {
		d.t.Fatal(err)
	}
	b := renewal.Limit(8, fleet.Limits{})
	b.Doubt = value[enrol.Breaker](d.t)(d.store.Breaker(ctx, d.runner.CAName)).State != enrol.BreakerClosed
	before := d.rows()
	pass := renewal.NewLoop(renewal.Loop{
		Worker: d.runner, Observer: d, Bounds: b, Timeout: time.Minute, Now: d.clmClock.now, Log: quiet(),
	}).Pass(ctx, jobs)
	for name, row := range d.rows() {
		d.judge(before[name], row, now)
	}
	return pass
}

func (d *days) rows() map[string]renewal.Row {
	rows := map[string]renewal.Row{}
	for _, r := range value[[]renewal.Row](d.t)(d.store.Rows(context.Background(), "", 0)) {
		rows[r.Name] = r
	}
	return rows
}

// judge looks at a device before and after a pass.
func (d *days) judge(before, after renewal.Row, now time.Time) {
	d.t.Helper()
	hours := now.Sub(d.begin).Hours()
	if !before.NotAfter.IsZero() && !before.NotAfter.Equal(after.NotAfter) {
		d.renewed++
		if before.RenewAt.After(now.Add(time.Minute)) {
			d.t.Errorf("hour %.1f: %s is enrolled again, though it is due at %v", hours, after.Name, before.RenewAt)
		}
	}
	if ended := !before.NotAfter.IsZero() && before.NotAfter.Before(now); ended && d.away[after.Name].Before(before.RenewAt) {
		d.t.Errorf("hour %.1f: %s expired, and could have been renewed: %+v", hours, after.Name, before)
	} else if ended {
		d.expired[after.Name] = true
	}
}

// leave stops a device for a while.
func (d *days) leave(n *node, until time.Time) {
	n.stop()
	d.off[n] = until
	d.away[n.name] = until.Add(2 * time.Hour) // its next try may be ahead then
}

// TestDays: the real stack for a few dozen devices over days of one-day
// certificates. Devices are switched off for hours, past the end of their
// certificates, and restarted in between; one is another than it should be; the
// CA is gone for twelve hours. Nobody expires who could have been renewed, those
// who did renew like all others, and nobody is enrolled before he is due.
func TestDays(t *testing.T) {
	d := newDays(t, *realFleet)
	for _, name := range value[[]renewal.Row](t)(d.store.Rows(context.Background(), "", 0)) {
		d.runner.Run(context.Background(), name.Name, false)
	}
	random := rand.New(rand.NewPCG(3, 5))
	for hour := time.Duration(0); hour < time.Duration(*realDays)*24*time.Hour; hour += step {
		d.forward(step)
		now := d.clmClock.now()
		d.down.Store(hour%(72*time.Hour) >= 30*time.Hour && hour%(72*time.Hour) < 42*time.Hour)
		for i, n := range d.nodes {
			switch back, off := d.off[n]; {
			case off && !back.After(now):
				n.serve()
				delete(d.off, n)
			case off:
			case i%6 == 5 && hour == 8*time.Hour:
				d.leave(n, now.Add(20*time.Hour))
			case random.IntN(40) == 0:
				n.stop()
				n.serve()
			}
		}
		d.pass()
	}
	d.finish()
}

// finish judges the fleet at the end.
func (d *days) finish() {
	d.t.Helper()
	now := d.clmClock.now()
	for _, n := range d.nodes {
		if row := d.rows()[n.name]; !row.NotAfter.After(now) || row.Quarantined {
			d.t.Errorf("%s at the end: %+v", n.name, row)
		}
		d.checkWhole(n)
	}
	if len(d.expired) < len(d.nodes)/6 {
		d.t.Errorf("only %d devices were away until they expired", len(d.expired))
	}
	stranger := d.rows()["plc-99"]
	if !stranger.NotAfter.IsZero() || !strings.Contains(stranger.LastError, "identity refused") {
		d.t.Errorf("the stranger: %+v", stranger)
	}
	d.t.Logf("%d devices, %d days: %d renewals, %d devices were away until they had expired", len(d.nodes), *realDays, d.renewed, len(d.expired))
}
