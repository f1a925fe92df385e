package renewal_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

func epoch() time.Time { return time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC) }

func jobs(n int, failing bool) []renewal.Job {
	out := make([]renewal.Job, n)
	for i := range out {
		out[i] = renewal.Job{Device: fmt.Sprintf("plc-%04d", i), NotAfter: epoch().Add(time.Duration(i) * time.Minute), Failing: failing}
		if failing {
			out[i].Device, out[i].NotAfter = fmt.Sprintf("old-%04d", i), time.Time{}
		}
	}
	return out
}

// Those whose certificates end first are worked on first.
func TestMostUrgentFirst(t *testing.T) {
	t.Parallel()
	s := renewal.NewScheduler(renewal.Bounds{Devices: 1})
	offered := jobs(20, false)
	slices.Reverse(offered)
	s.Offer(epoch(), offered)
	for i := range 20 {
		job, ok, _ := s.Next(epoch())
		if want := fmt.Sprintf("plc-%04d", i); !ok || job.Device != want {
			t.Fatalf("%s, %v, want %s", job.Device, ok, want)
		}
		if _, ok, wake := s.Next(epoch()); ok || !wake.IsZero() {
			t.Fatal("two at once")
		}
		s.Finish(epoch(), job.Device, renewal.Done{Renewed: true, AskedCA: true})
	}
	if _, ok, _ := s.Next(epoch()); ok || s.Running() != 0 {
		t.Error("more than were offered")
	}
}

// TestDeadDevicesDoNotStarveTheFleet: five hundred devices that were broken up
// for scrap, and whose certificates ended long ago, are each tried in vain for
// half a minute. Twenty healthy ones that are due do not wait for them; nor are
// the five hundred forgotten.
func TestDeadDevicesDoNotStarveTheFleet(t *testing.T) {
	t.Parallel()
	s := renewal.NewScheduler(renewal.Bounds{Devices: 4})
	s.Offer(epoch(), append(jobs(500, true), jobs(20, false)...))
	now, dead, healthy := epoch(), 0, 0
	ends := map[string]time.Time{}
	for healthy < 20 {
		for {
			job, ok, _ := s.Next(now)
			if !ok {
				break
			}
			took := time.Second
			if job.Failing {
				took = 30 * time.Second
			}
			ends[job.Device] = now.Add(took)
		}
		now = now.Add(time.Second)
		for device, end := range ends {
			if end.After(now) {
				continue
			}
			delete(ends, device)
			s.Finish(now, device, renewal.Done{Failed: device[0] == 'o', Renewed: device[0] == 'p'})
			if device[0] == 'p' {
				healthy++
			} else {
				dead++
			}
		}
	}
	if took := now.Sub(epoch()); took > 15*time.Second {
		t.Errorf("the healthy ones took %v", took)
	}
	if len(ends) == 0 && dead == 0 {
		t.Error("nobody tried the others")
	}
}

// A CA is asked as often as its rate allows, and not for devices that never
// came as far as that.
func TestPace(t *testing.T) {
	t.Parallel()
	s := renewal.NewScheduler(renewal.Bounds{Devices: 8, CA: fleet.Limits{Rate: fleet.Rate{N: 6, Per: time.Minute}}})
	s.Offer(epoch(), jobs(100, false))
	now := epoch()
	first, ok, _ := s.Next(now)
	if !ok {
		t.Fatal("none to begin with")
	}
	if _, ok, wake := s.Next(now); ok || !wake.Equal(now.Add(10*time.Second)) {
		t.Errorf("%v, %v", ok, wake)
	}
	s.Finish(now, first.Device, renewal.Done{Failed: true}) // it was unreachable
	if _, ok, _ = s.Next(now); !ok {
		t.Error("a device that never came to the CA costs its rate")
	}
	// The clock is put back by a year.
	if _, ok, _ = s.Next(now.AddDate(-1, 0, 0)); !ok {
		t.Error("waits for a year")
	}
}

func TestCanary(t *testing.T) {
	t.Parallel()
	for _, succeeds := range []bool{false, true} {
		s := renewal.NewScheduler(renewal.Bounds{Devices: 8, Canary: 3})
		s.Offer(epoch(), jobs(20, false))
		var first []string
		for {
			job, ok, _ := s.Next(epoch())
			if !ok {
				break
			}
			first = append(first, job.Device)
		}
		if len(first) != 3 {
			t.Fatalf("%d went first", len(first))
		}
		for i, device := range first {
			good := succeeds && i == 2
			s.Finish(epoch(), device, renewal.Done{Renewed: good, Failed: !good})
		}
		_, ok, _ := s.Next(epoch())
		if ok != succeeds || (s.Halted() == renewal.HaltCanary) == succeeds {
			t.Errorf("one succeeds %v: goes on %v, halt %q", succeeds, ok, s.Halted())
		}
	}
}

func TestMaxFailures(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		bounds renewal.Bounds
		tried  int // before it halts, every second one failing
	}{
		{renewal.Bounds{MaxFailures: 3}, 7},
		{renewal.Bounds{MaxShare: 0.4}, 10},
		{renewal.Bounds{MaxShare: 0.6}, 100},
		{renewal.Bounds{}, 100},
	} {
		s := renewal.NewScheduler(c.bounds)
		s.Offer(epoch(), jobs(100, false))
		tried := 0
		for {
			job, ok, _ := s.Next(epoch())
			if !ok {
				break
			}
			s.Finish(epoch(), job.Device, renewal.Done{Failed: tried%2 == 0, Renewed: tried%2 == 1})
			tried++
		}
		if tried != c.tried {
			t.Errorf("%+v: %d tried, want %d", c.bounds, tried, c.tried)
		}
	}
}

// A CA that is gone is left alone, and then asked by one device.
func TestCAIsLeftAlone(t *testing.T) {
	t.Parallel()
	s := renewal.NewScheduler(renewal.Bounds{Devices: 4, Strikes: 3, Retry: time.Minute})
	s.Offer(epoch(), jobs(50, false))
	now := epoch()
	started := 0
	for range 3 {
		job, ok, _ := s.Next(now)
		if !ok {
			t.Fatal("stopped early")
		}
		s.Finish(now, job.Device, renewal.Done{NoCA: true})
		started++
	}
	if _, ok, wake := s.Next(now); ok || !wake.Equal(now.Add(time.Minute)) || s.Blocked(now).IsZero() {
		t.Fatalf("%v, %v", ok, wake)
	}
	now = now.Add(time.Minute)
	probe, ok, _ := s.Next(now)
	if !ok {
		t.Fatal("nobody looks whether it is back")
	}
	if _, ok, _ := s.Next(now); ok {
		t.Error("two look at once")
	}
	s.Finish(now, probe.Device, renewal.Done{Renewed: true, AskedCA: true})
	for range 4 {
		if _, ok, _ := s.Next(now); !ok {
			t.Error("not at full strength")
		}
	}
}

// After an outage one device finds out that the CA is back, and the others of
// the same pass follow.
func TestDoubt(t *testing.T) {
	t.Parallel()
	for _, back := range []bool{true, false} {
		s := renewal.NewScheduler(renewal.Bounds{Devices: 8, Strikes: 3, Once: true, Doubt: true})
		s.Offer(epoch(), jobs(20, false))
		first, ok, _ := s.Next(epoch())
		if _, second, _ := s.Next(epoch()); !ok || second {
			t.Fatalf("%v, then %v", ok, second)
		}
		s.Finish(epoch(), first.Device, renewal.Done{Renewed: back, AskedCA: true, NoCA: !back})
		if _, ok, _ := s.Next(epoch()); ok != back || (s.Halted() == renewal.HaltCA) == back {
			t.Errorf("back %v: goes on %v, halt %q", back, ok, s.Halted())
		}
	}
}

// In a maintenance window nobody is worked on; a single pass ends.
func TestMaintenance(t *testing.T) {
	t.Parallel()
	calendar, err := fleet.ParseCalendar([]string{"daily 12:00-14:00"}, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	for _, once := range []bool{false, true} {
		s := renewal.NewScheduler(renewal.Bounds{Devices: 500, Once: once, CA: fleet.Limits{Calendar: calendar}})
		s.Offer(epoch(), jobs(200, false))
		end := epoch().Add(2 * time.Hour)
		_, ok, wake := s.Next(end.Add(-time.Second))
		if ok || once != wake.IsZero() || !once && !wake.Equal(end) || (s.Halted() == renewal.HaltMaintenance) != once {
			t.Errorf("once %v: %v, %v, %q", once, ok, wake, s.Halted())
		}
		if _, ok, _ := s.Next(end); ok == once {
			t.Errorf("once %v: after the window: %v", once, ok)
		}
	}
}

// Devices without a valid certificate, those that failed, and the others share
// the turns, and a wish goes before all.
func TestTurns(t *testing.T) {
	t.Parallel()
	s := renewal.NewScheduler(renewal.Bounds{Devices: 100})
	var offered []renewal.Job
	for i := range 20 {
		offered = append(offered, renewal.Job{Device: fmt.Sprintf("lost-%d", i)},
			renewal.Job{Device: fmt.Sprintf("failing-%d", i), Failing: true},
			renewal.Job{Device: fmt.Sprintf("sound-%d", i), NotAfter: epoch().Add(time.Hour)})
	}
	s.Offer(epoch(), offered)
	s.Wish("sound-7", "unknown")
	s.Offer(epoch(), offered) // wishes stay
	if s.Waiting() != 61 || len(s.Left()) != 61 {
		t.Fatalf("%d wait, %d are left", s.Waiting(), len(s.Left()))
	}
	counts := map[string]int{}
	for i := range 22 {
		job, ok, _ := s.Next(epoch())
		if !ok || job.Force != (i < 2) || i < 2 && job.Device != "sound-7" && job.Device != "unknown" {
			t.Fatalf("%d: %+v, %v", i, job, ok)
		}
		if i >= 2 {
			counts[job.Device[:4]]++
		}
	}
	if want := map[string]int{"soun": 10, "lost": 5, "fail": 5}; !maps.Equal(counts, want) {
		t.Errorf("%v, want %v", counts, want)
	}
	s.Offer(epoch(), nil)
	s.Wish("sound-7", "lost-19")
	if left := s.Left(); len(left) != 1 || left[0].Device != "lost-19" {
		t.Errorf("a device that is worked on is wished again: %v", left)
	}
}

// Whatever happens, no device is worked on twice at once, no more than allowed
// at once, and each that was offered is started or left.
func TestSchedulerProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := renewal.Bounds{
			Devices: rapid.IntRange(1, 6).Draw(t, "devices"), Strikes: rapid.IntRange(0, 3).Draw(t, "strikes"), Retry: time.Minute,
			CA: fleet.Limits{Rate: fleet.Rate{N: rapid.IntRange(0, 5).Draw(t, "n"), Per: time.Minute}}, Once: rapid.Bool().Draw(t, "once"),
		}
		s := renewal.NewScheduler(b)
		n := rapid.IntRange(0, 30).Draw(t, "jobs")
		var offered []renewal.Job
		for i := range n {
			offered = append(offered, renewal.Job{
				Device: fmt.Sprint(i), Failing: rapid.Bool().Draw(t, "failing"), NotAfter: epoch().Add(time.Duration(rapid.IntRange(-1, 1).Draw(t, "end")) * time.Hour),
			})
		}
		if rapid.Bool().Draw(t, "at once") {
			s.Offer(epoch(), offered)
		} else {
			for _, j := range offered {
				s.Add(epoch(), j)
			}
		}
		now := epoch()
		started := map[string]int{}
		var running []string
		for step := 0; step < 5000 && (len(s.Left()) > 0 || len(running) > 0); step++ {
			job, ok, wake := s.Next(now)
			switch {
			case ok:
				if started[job.Device]++; started[job.Device] > 1 {
					t.Fatalf("%s was started twice", job.Device)
				}
				running = append(running, job.Device)
				if len(running) > b.Devices {
					t.Fatalf("%d at once", len(running))
				}
				continue
			case len(running) > 0:
				i := rapid.IntRange(0, len(running)-1).Draw(t, "done")
				kind := rapid.IntRange(0, 3).Draw(t, "kind")
				s.Finish(now, running[i], renewal.Done{Renewed: kind == 0, Failed: kind == 1, NoCA: kind == 2, AskedCA: kind != 1})
				running = slices.Delete(running, i, i+1)
			case s.Halted() != renewal.HaltNone:
				if len(started)+len(s.Left()) != n {
					t.Fatalf("%d started, %d left of %d", len(started), len(s.Left()), n)
				}
				return
			case wake.IsZero():
				t.Fatalf("%d left, and nobody to wait for", len(s.Left()))
			default:
				if !wake.After(now) {
					t.Fatalf("wakes at %v, it is %v", wake, now)
				}
				now = wake
			}
		}
		if len(started) != n {
			t.Fatalf("%d started of %d", len(started), n)
		}
	})
}
