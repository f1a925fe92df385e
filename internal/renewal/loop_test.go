package renewal_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

// world is a fleet whose devices all answer: an inventory, a worker and an
// observer, with a wall clock that can be put forward and back.
type world struct {
	mu       sync.Mutex
	shift    atomic.Int64  // of the wall clock, a duration
	life     time.Duration // of the certificates
	ends     map[string]time.Time
	runs     map[string]int
	forced   map[string]bool
	expired  []string // whose certificate had ended when it was renewed
	broken   error    // of the inventory
	takes    time.Duration
	outcome  func(device string) enrol.Result
	started  []string
	ticks    int
	tickErrs int
}

func newWorld(life time.Duration, devices ...string) *world {
	w := &world{life: life, ends: map[string]time.Time{}, runs: map[string]int{}, forced: map[string]bool{}, takes: time.Second}
	for _, d := range devices {
		w.ends[d] = w.now().Add(life)
	}
	return w
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.shift.Load())) }

// due is when a certificate should be renewed: at half of its life.
func (w *world) due(device string) time.Time { return w.ends[device].Add(-w.life / 2) }

// DueJobs implements renewal.Queue.
func (w *world) DueJobs(_ context.Context, now time.Time) ([]renewal.Job, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var due []renewal.Job
	for _, d := range slices.Sorted(maps.Keys(w.ends)) {
		if !w.due(d).After(now) {
			due = append(due, renewal.Job{Device: d, NotAfter: w.ends[d], Due: w.due(d)})
		}
	}
	return due, w.broken
}

// NextDue implements renewal.Queue.
func (w *world) NextDue(_ context.Context, now time.Time) (time.Time, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var next time.Time
	for d := range w.ends {
		if at := w.due(d); at.After(now) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next, w.broken
}

// Run implements renewal.Worker.
func (w *world) Run(ctx context.Context, device string, force bool) enrol.Result {
	select {
	case <-time.After(w.takes):
	case <-ctx.Done():
		return enrol.Result{Device: device, Outcome: enrol.OutcomePending, Err: ctx.Err()}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.runs[device]++
	w.forced[device] = w.forced[device] || force
	if w.outcome != nil {
		return w.outcome(device)
	}
	if w.ends[device].Before(w.now()) {
		w.expired = append(w.expired, device)
	}
	w.ends[device] = w.now().Add(w.life)
	return enrol.Result{Device: device, Outcome: enrol.OutcomeRenewed}
}

// Started implements renewal.Observer.
func (w *world) Started(device string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.started = append(w.started, device)
}

// Finished implements renewal.Observer.
func (*world) Finished(enrol.Result) {}

// Ticked implements renewal.Observer.
func (w *world) Ticked(t renewal.Tick) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ticks++
	if t.Err != nil {
		w.tickErrs++
	}
}

func (w *world) begun() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.started)
}

func (w *world) loop(tick, grace time.Duration, b renewal.Bounds) *renewal.Loop {
	return renewal.NewLoop(renewal.Loop{
		Queue: w, Worker: w, Observer: w, Bounds: b, Timeout: time.Hour, Tick: tick, Grace: grace, Now: w.now, Log: slog.New(slog.DiscardHandler),
	})
}

// run runs a loop while something happens.
func (w *world) run(l *renewal.Loop, happens func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.Run(ctx, nil)
	}()
	happens()
	cancel()
	<-ended
}

// Lifetimes from two minutes to two years work: no certificate ends, and none is
// renewed more than once for each half of its life.
func TestLifetimes(t *testing.T) {
	t.Parallel()
	for _, life := range []time.Duration{2 * time.Minute, time.Hour, 24 * time.Hour, 2 * 365 * 24 * time.Hour} {
		t.Run(life.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(life, "a", "b", "c")
				w.run(w.loop(max(30*time.Second, life/1000), time.Minute, renewal.Bounds{Devices: 2}), func() { time.Sleep(4*life + life/4) })
				for d, n := range w.runs {
					if n != 8 {
						t.Errorf("%s was renewed %d times in 8.5 halves of its life", d, n)
					}
				}
				if len(w.runs) != 3 || len(w.expired) > 0 {
					t.Errorf("%v renewed, %v too late", w.runs, w.expired)
				}
			})
		})
	}
}

// The wall clock is put forward by a day, and back by a year: within a tick the
// loop does what is to be done then, and it never stands still.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	for _, jump := range []time.Duration{time.Hour, 24 * time.Hour, -time.Hour, -365 * 24 * time.Hour} {
		t.Run(jump.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(4*time.Hour, "a")
				w.run(w.loop(30*time.Second, 0, renewal.Bounds{CA: fleet.Limits{Rate: fleet.Rate{N: 1, Per: time.Minute}}}), func() {
					time.Sleep(2*time.Hour + time.Minute)
					w.mu.Lock()
					before, ticks := w.runs["a"], w.ticks
					w.shift.Add(int64(jump))
					w.ends["b"] = w.now().Add(w.life / 2) // it is due
					w.mu.Unlock()
					time.Sleep(2 * time.Minute)
					w.mu.Lock()
					defer w.mu.Unlock()
					if before != 1 || w.runs["b"] != 1 || w.ticks < ticks+3 {
						t.Errorf("%d before, then b %d times and %d looks", before, w.runs["b"], w.ticks-ticks)
					}
					if due := jump >= 2*time.Hour; (w.runs["a"] == 2) != due {
						t.Errorf("a was renewed %d times", w.runs["a"])
					}
				})
			})
		})
	}
}

// An inventory that cannot be read is read again at the next tick.
func TestInventoryFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(2*time.Minute, "a")
		w.broken = errors.New("disk I/O error")
		w.run(w.loop(30*time.Second, 0, renewal.Bounds{}), func() {
			time.Sleep(95 * time.Second)
			w.mu.Lock()
			if w.tickErrs != 4 || w.runs["a"] != 0 {
				t.Errorf("%d looks failed, %d renewals", w.tickErrs, w.runs["a"])
			}
			w.broken = nil
			w.mu.Unlock()
			time.Sleep(time.Minute)
		})
		if w.runs["a"] != 1 {
			t.Errorf("renewed %d times once it can be read", w.runs["a"])
		}
	})
}

// A wish is done with force and at once, but keeps to the places; one that comes
// while the loop ends is refused instead of being forgotten.
func TestWish(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(time.Hour, "a", "b", "c")
		w.takes = 10 * time.Second
		l := w.loop(30*time.Second, time.Hour, renewal.Bounds{Devices: 2})
		refused := make(chan error, 1)
		w.run(l, func() {
			time.Sleep(time.Second)
			if err := l.Wish(context.Background(), "a", "b", "c", "a"); err != nil {
				t.Error(err)
			}
			synctest.Wait()
			if n := w.begun(); n != 2 {
				t.Errorf("%d at once", n)
			}
			time.Sleep(11 * time.Second)
			synctest.Wait()
			if n := w.begun(); n != 3 {
				t.Errorf("%d after one was done", n)
			}
			go func() {
				time.Sleep(time.Millisecond)
				refused <- l.Wish(context.Background(), "a")
			}()
		})
		if err := <-refused; !errors.Is(err, renewal.ErrEnded) {
			t.Errorf("a wish at the end: %v", err)
		}
		if want := map[string]int{"a": 1, "b": 1, "c": 1}; !maps.Equal(w.runs, want) || !w.forced["c"] {
			t.Errorf("%v, forced %v", w.runs, w.forced)
		}
	})
}

// A loop that is to end waits for the devices it works on, for its grace.
func TestGrace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		takes, grace time.Duration
		hurry        bool
		done         int
		lasts        time.Duration
	}{
		{20 * time.Second, time.Minute, false, 1, 19 * time.Second},
		{20 * time.Minute, time.Minute, false, 0, time.Minute},
		{20 * time.Second, 0, false, 0, 0},
		{20 * time.Minute, time.Hour, true, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(time.Hour, "a")
			w.ends["a"] = w.now()
			w.takes = c.takes
			hurry := make(chan struct{})
			if c.hurry {
				close(hurry)
			}
			ctx, cancel := context.WithCancel(context.Background())
			time.AfterFunc(time.Second, cancel)
			begin := time.Now()
			w.loop(30*time.Second, c.grace, renewal.Bounds{}).Run(ctx, hurry)
			if lasts := time.Since(begin) - time.Second; w.runs["a"] != c.done || lasts != c.lasts {
				t.Errorf("%+v: done %d times, after %v", c, w.runs["a"], lasts)
			}
		})
	}
}

// A pass tries each device once, the most urgent first, and says what it left.
func TestPass(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(time.Hour)
		w.outcome = func(device string) enrol.Result {
			if device == "c" {
				return enrol.Result{Device: device, Outcome: enrol.OutcomePending, Err: &enrol.Fault{Class: enrol.ClassCAUnavail, By: enrol.PartyCA, Err: errors.New("gone")}}
			}
			return enrol.Result{Device: device, Outcome: enrol.OutcomeRenewed}
		}
		l := w.loop(time.Second, 0, renewal.Bounds{Strikes: 1, Retry: time.Minute})
		var jobs []renewal.Job
		for i, d := range []string{"e", "d", "c", "b", "a"} {
			jobs = append(jobs, renewal.Job{Device: d, NotAfter: w.now().Add(time.Duration(5-i) * time.Minute)})
		}
		p := l.Pass(context.Background(), jobs)
		var done, left []string
		for _, r := range p.Results {
			done = append(done, r.Device)
		}
		for _, j := range p.Left {
			left = append(left, j.Device)
		}
		if !slices.Equal(done, []string{"a", "b", "c"}) || !slices.Equal(left, []string{"d", "e"}) || p.Halt != renewal.HaltCA || !p.NoCA || p.Interrupted {
			t.Errorf("done %v, left %v, %+v", done, left, p)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if p = l.Pass(ctx, jobs); !p.Interrupted || len(p.Left) != 5 || len(p.Results) != 0 {
			t.Errorf("interrupted: %+v", p)
		}
	})
}
