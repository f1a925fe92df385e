package renewal_test

import (
	"context"
	"crypto/x509"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/enrol/enroltest"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

// make soak asks for 1,000 devices and a month.
var (
	fleetSize = flag.Int("fleet", 60, "devices of TestMonth")
	fleetDays = flag.Int("days", 21, "days of TestMonth, at least 21")
)

// month is a fleet of one-day certificates that the loop keeps alive while
// things go wrong. Its own clock is right; that of the CLM is put forward and back.
type month struct {
	t     *testing.T
	plant *enroltest.Plant
	begin time.Time
	shift atomic.Int64 // of the CLM's clock
	rate  fleet.Rate   // that the CA has, and that the CLM knows
	gate  *memoryGate

	mu       sync.Mutex
	troubled map[string][]fleet.Span // when a device could not have been renewed
	ends     map[string]time.Time    // of the certificate that each device has
	dues     map[string]time.Time    // when that was due
	renewals int
	expired  int // of devices that could not have been renewed
	least    time.Duration
	pressed  int // submissions in the hours in which the CA takes less than agreed
}

// now is what the CLM takes for the time.
func (m *month) now() time.Time { return time.Now().Add(time.Duration(m.shift.Load())) }

// DueJobs implements renewal.Queue.
func (m *month) DueJobs(_ context.Context, now time.Time) ([]renewal.Job, error) {
	var jobs []renewal.Job
	for _, d := range m.plant.Store.Due(now, enrol.DefaultPolicy().LongestWait()) {
		j := renewal.Job{Device: d.Name, Due: d.RenewAt, Failing: d.LastError != ""}
		if d.Certificate != nil {
			j.NotAfter = d.Certificate.NotAfter
		}
		jobs = append(jobs, j)
	}
	return jobs, nil
}

// NextDue implements renewal.Queue.
func (m *month) NextDue(_ context.Context, now time.Time) (time.Time, error) {
	return m.plant.Store.NextDue(now), nil
}

// Started implements renewal.Observer.
func (*month) Started(string) {}

// Finished implements renewal.Observer.
func (*month) Finished(enrol.Result) {}

// Ticked implements renewal.Observer.
func (*month) Ticked(renewal.Tick) {}

// memoryGate keeps a rate as oslock.Gate does, within one process.
type memoryGate struct {
	mu     sync.Mutex
	rate   fleet.Rate
	recent []time.Time
}

// Enter implements enrol.Gate.
func (g *memoryGate) Enter(ctx context.Context, _ string) (func(), error) {
	for {
		g.mu.Lock()
		now := time.Now()
		g.recent = slices.DeleteFunc(g.recent, func(t time.Time) bool { return now.Sub(t) >= g.rate.Per })
		if len(g.recent) < g.rate.N {
			g.recent = append(g.recent, now)
			g.mu.Unlock()
			return func() {}, nil
		}
		wait := g.recent[0].Add(g.rate.Per).Sub(now)
		g.mu.Unlock()
		if wait > 30*time.Second {
			return nil, &enrol.TryLater{After: wait, Err: fmt.Errorf("the CA's rate %s is used up", g.rate)}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func newMonth(t *testing.T, devices int) *month {
	m := &month{
		t: t, begin: time.Now(), troubled: map[string][]fleet.Span{}, ends: map[string]time.Time{}, dues: map[string]time.Time{}, least: 24 * time.Hour,
		// Three renewals a day and device, half as many again.
		rate: fleet.Rate{N: max(4, devices*3*3/2/24), Per: time.Hour},
	}
	m.gate = &memoryGate{rate: m.rate}
	var err error
	if m.plant, err = enroltest.NewPlant(devices, m.now); err != nil {
		t.Fatal(err)
	}
	m.plant.Store.Keep = 1
	m.plant.Store.OnEvent = func(enrol.Event) {}
	m.plant.Store.OnCommit = m.committed
	m.plant.CA.Now = time.Now
	m.plant.CA.Rate = m.rate
	return m
}

// committed sees each certificate that a device has from now on: the last one
// must have been due, and if it had ended nobody could have helped it.
func (m *month) committed(c enrol.Change) error {
	if c.Enrolment.State != enrol.Completed || c.Device == nil || c.Device.Certificate == nil {
		return nil
	}
	leaf, err := x509.ParseCertificate(c.Enrolment.Certificate)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	name, now := c.Device.Name, time.Now()
	end, due := m.ends[name], m.dues[name]
	if end.Equal(leaf.NotAfter) {
		return nil
	}
	if m.renewals++; !end.IsZero() {
		// The last one was due by the CLM's clock, whatever that was.
		if m.now().Before(due) && !fleetClockWasWrong(m.begin, now) {
			m.t.Errorf("%s is enrolled a second time %v after the begin, though it is due in %v", name, now.Sub(m.begin), due.Sub(now))
		}
		m.least = min(m.least, m.judge(name, due, end, now))
	}
	m.ends[name], m.dues[name] = leaf.NotAfter, c.Device.RenewAt
	return nil
}

// judge returns what a certificate had left when it was replaced, and fails the
// test if it had ended though its device could have been renewed.
func (m *month) judge(name string, due, end, now time.Time) time.Duration {
	left := end.Sub(now)
	if left >= 0 {
		return left
	}
	for _, s := range m.troubled[name] {
		if s.From.Before(end) && s.To.After(due.Add(-time.Hour)) {
			m.expired++
			return 24 * time.Hour
		}
	}
	m.t.Errorf("%s expired %v after the begin, due at %v, renewed at %v", name, end.Sub(m.begin), due.Sub(m.begin), now.Sub(m.begin))
	return left
}

// at does something so long after the begin.
func (m *month) at(after time.Duration, do func()) {
	go func() {
		time.Sleep(time.Until(m.begin.Add(after)))
		do()
	}()
}

// The days on which something happens to all.
const (
	day        = 24 * time.Hour
	caDown     = 5*day + 5*time.Hour // for 12 hours
	caFlaps    = 9 * day             // for an hour each third hour, six times
	caBusy     = 12 * day            // takes a third of what was agreed, for 8 hours
	clockAhead = 15 * day            // by 6 hours, for 3 hours
	clockBack  = 18 * day            // by a day, for 2 hours
)

// fleetClockWasWrong reports whether the CLM's clock is or lately was wrong.
func fleetClockWasWrong(begin, now time.Time) bool {
	for _, at := range []time.Duration{clockAhead, clockBack} {
		if since := now.Sub(begin) - at; since >= 0 && since < day {
			return true
		}
	}
	return false
}

// everybody has the CA and the clock go wrong.
func (m *month) everybody() {
	ca := m.plant.CA
	fail := func(from, length time.Duration) {
		m.at(from, func() { ca.Set(func(ca *enroltest.CA) { ca.Err = enrol.ErrCAUnavailable }) })
		m.at(from+length, func() { ca.Set(func(ca *enroltest.CA) { ca.Err = nil }) })
	}
	fail(caDown, 12*time.Hour)
	for n := range 6 {
		fail(caFlaps+time.Duration(3*n)*time.Hour, time.Hour)
	}
	m.at(caBusy, func() {
		ca.Set(func(ca *enroltest.CA) { ca.Rate.N, m.pressed = m.rate.N/3, -ca.Exceeded })
	})
	m.at(caBusy+8*time.Hour, func() {
		ca.Set(func(ca *enroltest.CA) { ca.Rate, m.pressed = m.rate, m.pressed+ca.Exceeded })
	})
	for at, jump := range map[time.Duration]time.Duration{clockAhead: 6 * time.Hour, clockBack: -day} {
		m.at(at, func() { m.shift.Store(int64(jump)) })
		m.at(at+(3*time.Hour), func() { m.shift.Store(0) })
	}
}

// some have devices go wrong, a few always and a few at times.
func (m *month) some(days int) {
	random := rand.New(rand.NewPCG(7, 11))
	for i, name := range m.plant.Names {
		device := m.plant.Devices[name]
		switch i % 20 {
		case 3: // scrap
			m.trouble(name, 2*day, time.Duration(days)*day, enroltest.Unreachable)
		case 7: // cloned, or a stolen key
			m.trouble(name, 3*day, time.Duration(days)*day, enroltest.WrongKey)
		case 11: // behind a bad radio link
			device.Break(enroltest.Fault{Slow: time.Duration(1+random.IntN(20)) * time.Second})
		case 2, 5, 13, 17:
			for range days / 4 {
				from := time.Duration(random.Float64() * float64(days) * float64(day))
				length := time.Duration((1 + 29*random.Float64()) * float64(time.Hour))
				kinds := []enroltest.FaultKind{enroltest.Unreachable, enroltest.DiskFull, enroltest.HookFailing, enroltest.Restarting}
				m.trouble(name, from, length, kinds[random.IntN(len(kinds))])
			}
		}
	}
}

// trouble has a device fail for a while; then somebody mends it, and ends its
// quarantine.
func (m *month) trouble(name string, from, length time.Duration, kind enroltest.FaultKind) {
	// Its next try may be hours ahead when it is mended.
	m.troubled[name] = append(m.troubled[name], fleet.Span{From: m.begin.Add(from), To: m.begin.Add(from + length + 6*time.Hour)})
	m.at(from, func() { m.plant.Devices[name].Break(enroltest.Fault{Kind: kind}) })
	m.at(from+length, func() {
		m.plant.Devices[name].Break(enroltest.Fault{})
		m.plant.Store.Put(name, func(d *fleet.Device) { d.Quarantined, d.Attempts, d.NextAttempt = false, 0, time.Time{} })
	})
}

// keep runs the loop over a plant for some days.
func (m *month) keep(days int) {
	limits := fleet.Limits{Rate: m.rate}
	runner := m.plant.Runner(enrol.DefaultPolicy())
	runner.Health, runner.Gate, runner.Limits, runner.Planned = m.plant.Store, m.gate, limits, m.plant.Store
	ctx, cancel := context.WithCancel(context.Background())
	m.at(time.Since(m.begin)+time.Duration(days)*day, cancel)
	renewal.NewLoop(renewal.Loop{
		Queue: m, Worker: runner, Observer: m, Bounds: renewal.Limit(16, limits), Timeout: 5 * time.Minute,
		Tick: 30 * time.Second, Grace: time.Minute, Now: m.now, Log: slog.New(slog.DiscardHandler),
	}).Run(ctx, nil)
}

// TestMonth: devices that are unreachable, slow, full, cloned or whose hooks
// fail; a CA that is down for twelve hours, then again and again for one, and
// that takes a third of what was agreed; a clock that is put forward and back.
// No certificate ends that could have been renewed, the CA's rate is never
// exceeded, and nobody is enrolled twice for one due date.
func TestMonth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMonth(t, *fleetSize)
		m.everybody()
		m.some(*fleetDays)
		m.keep(*fleetDays)
		m.close()
		time.Sleep(time.Duration(*fleetDays) * day) // until what was to happen has happened
	})
}

// close judges the certificates that devices have at the end.
func (m *month) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for name, end := range m.ends {
		if end.Before(now) {
			m.judge(name, m.dues[name], end, now)
		}
	}
	if exceeded := m.plant.CA.Exceeded - m.pressed; exceeded > 0 {
		m.t.Errorf("the CA's rate %s was exceeded %d times", m.rate, exceeded)
	}
	if len(m.ends) != len(m.plant.Names) || m.renewals < 2*len(m.plant.Names)*(*fleetDays)*8/10 {
		m.t.Errorf("%d devices of %d have certificates, %d renewals", len(m.ends), len(m.plant.Names), m.renewals)
	}
	m.t.Logf("%d devices, %d days, CA takes %s: %d certificates, CA asked %d times (%d too often while it took less than agreed); at least %v left; %d ended of devices that nobody could have renewed",
		len(m.plant.Names), *fleetDays, m.rate, m.renewals, m.plant.CA.Asked, m.pressed, m.least.Round(time.Second), m.expired)
}
