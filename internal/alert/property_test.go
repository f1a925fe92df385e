package alert_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeclm/edgeclm/internal/alert"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

// kept is a tracker as processes use it: read, updated, and written only if it
// says so.
type kept struct {
	t      rapid.TB
	stored []byte
	policy alert.Policy
}

func (k *kept) update(now time.Time, f alert.Facts) (alert.Digest, *alert.Tracker) {
	k.t.Helper()
	tracker := &alert.Tracker{}
	if k.stored != nil {
		var err error
		if tracker, err = alert.Parse(k.stored); err != nil {
			k.t.Fatal(err)
		}
	}
	d, changed := tracker.Update(now, alert.Evaluate(now, f, alert.Thresholds{}), f.Unsure, k.policy)
	if changed {
		data, err := tracker.Bytes()
		if err != nil {
			k.t.Fatal(err)
		}
		k.stored = data
	}
	return d, tracker
}

// TestHealthyFleetRaisesNoAlert: certificates of two minutes to two years that
// are renewed where they should, some of them at the second try; a CA that
// restarts; a night without the CA.
func TestHealthyFleetRaisesNoAlert(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := start()
		life := time.Duration(rapid.Int64Range(int64(2*time.Minute), int64(2*365*24*time.Hour)).Draw(t, "life"))
		share := func(name string, from, to float64) time.Duration {
			return time.Duration(rapid.Float64Range(from, to).Draw(t, name) * float64(life))
		}
		f := alert.Facts{
			Lifetime: life, Certificates: []alert.Certificate{{Role: "CA", Name: "c", NotBefore: now.Add(-life), NotAfter: now.Add(max(life, 31*24*time.Hour))}},
			Disk: alert.Disk{Path: "/d", Free: 1 << 30, Size: 1 << 40}, Lock: alert.Lock{Since: now.Add(-time.Hour), Holder: "renew"},
		}
		c := &f.Census
		for i := range rapid.IntRange(1, 20).Draw(t, "devices") {
			age := share("age", 0, 0.55)
			issued := now.Add(-age)
			if issued.After(c.LastSuccess) {
				c.LastSuccess = issued
			}
			ends, name := issued.Add(life), fmt.Sprint(i)
			if c.FirstExpiry.IsZero() || ends.Before(c.FirstExpiry) {
				c.FirstExpiry, c.FirstExpiring = ends, name
			}
			if due := age - share("placed", 0.33, 0.5); due > 0 {
				c.Due++
				late := min(due, max(life/20, time.Minute), 90*time.Minute)
				if at := now.Add(-late); f.DueSince.IsZero() || at.Before(f.DueSince) {
					f.DueSince = at
				}
				if rapid.Bool().Draw(t, "fails at first") {
					f.Troubles = append(f.Troubles, alert.Trouble{
						Device: name, Class: enrol.ClassBusy, LastError: "busy", Since: now.Add(-late), EnrolledAt: issued, NotAfter: ends,
					})
				}
			}
		}
		if rapid.Bool().Draw(t, "CA restarts") {
			f.CAs = []enrol.Breaker{{CA: "c", State: enrol.BreakerOpen, Class: enrol.ClassCAUnavail, Opened: 1, OpenedAt: now.Add(-min(life/20, 29*time.Minute))}}
		}
		if rapid.Bool().Draw(t, "commissions") {
			c.NeverReached, c.UnreachedSince = 3, now.Add(-23*time.Hour)
		}
		if alerts := alert.Evaluate(now, f, alert.Thresholds{}); len(alerts) > 0 {
			t.Fatalf("%+v", alerts)
		}
	})
}

// plant is a fleet of a few devices in all sorts of trouble.
func plant(t *rapid.T, now time.Time) alert.Facts {
	var f alert.Facts
	for i := range 5 {
		d := alert.Trouble{
			Device: fmt.Sprintf("plc-%d", i), Class: rapid.SampledFrom([]enrol.Class{enrol.ClassUnreachable, enrol.ClassBusy}).Draw(t, "class"),
			Since: now.Add(-30 * 24 * time.Hour), EnrolledAt: now.Add(-12 * time.Hour),
		}
		switch rapid.IntRange(0, 5).Draw(t, "trouble") {
		case 0:
			d.NotAfter = now.Add(-time.Hour)
		case 1:
			d.NotAfter = now.Add(2 * time.Hour)
		case 2:
			d.NotAfter = now.Add(8 * time.Hour)
		case 3:
			d.Quarantined = true
		default:
			continue
		}
		f.Troubles = append(f.Troubles, d)
	}
	if rapid.IntRange(0, 3).Draw(t, "clock") == 0 {
		f.ClockDoubt = "behind the CA"
	}
	if rapid.IntRange(0, 3).Draw(t, "list is cut") == 0 {
		f.More = 1
	}
	return f
}

// TestEveryEndIsToldOnce: an alert that was told recovers once; or its devices
// stand in others that are told, so that nobody reads of a recovery where it
// became worse. When all is over, the last message says so.
func TestEveryEndIsToldOnce(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		k := &kept{t: t, policy: alert.Policy{MinInterval: 15 * time.Minute, Hold: 10 * time.Minute, Burst: 2}}
		now := start()
		told := map[string][]string{} // devices by key
		var last alert.Digest
		take := func(f alert.Facts) {
			d, tracker := k.update(now, f)
			if !d.Empty() {
				last = d
			}
			for _, a := range d.New {
				if _, ok := told[a.Key]; ok {
					t.Fatalf("%s is told as new twice", a.Key)
				}
				told[a.Key] = a.Devices
			}
			present := map[string]bool{}
			for _, o := range tracker.Open {
				for _, name := range o.Alert.Devices {
					present[name] = present[name] || o.Gone.IsZero()
				}
			}
			for _, r := range d.Recovered {
				if _, ok := told[r.Key]; !ok {
					t.Fatalf("%s recovers and was not told", r.Key)
				}
				delete(told, r.Key)
				if len(r.Devices) > 0 && !slices.ContainsFunc(r.Devices, func(name string) bool { return !present[name] }) {
					t.Fatalf("%s has not recovered: %+v", r.Key, d)
				}
			}
			for key, o := range tracker.Open {
				if _, ok := told[key]; ok || !o.Told.IsZero() {
					told[key] = o.Alert.Devices
				}
			}
			for key, devices := range told {
				if tracker.Open[key] != nil {
					continue
				}
				for _, name := range devices {
					elsewhere := false
					for _, o := range tracker.Open {
						elsewhere = elsewhere || !o.Told.IsZero() && slices.Contains(o.Alert.Devices, name)
					}
					if !elsewhere {
						t.Fatalf("%s ended without a word of %s", key, name)
					}
				}
				delete(told, key)
			}
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(60, 1200).Draw(t, "seconds")) * time.Second)
			take(plant(t, now))
		}
		for range 40 {
			now = now.Add(time.Minute)
			take(alert.Facts{})
		}
		if len(told) > 0 || last.Sequence > 0 && (last.Open > 0 || len(last.Recovered) == 0) {
			t.Fatalf("left: %v; last message: %+v", told, last)
		}
	})
}

// TestClockJumpsNeitherStormNorSilence: whatever the clock does, each jump lets
// out no more messages than an interval has; and once it runs, what is new, what
// goes on and what is over is told in time.
func TestClockJumpsNeitherStormNorSilence(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := alert.Policy{MinInterval: 15 * time.Minute, Remind: 2 * time.Hour, Hold: 10 * time.Minute, Burst: 2}
		k := &kept{t: t, policy: p}
		now, ran, jumps, messages := start(), time.Duration(0), 0, 0
		take := func(f alert.Facts) alert.Digest {
			d, _ := k.update(now, f)
			if !d.Empty() {
				messages++
			}
			return d
		}
		for range rapid.IntRange(1, 120).Draw(t, "minutes") {
			now, ran = now.Add(time.Minute), ran+time.Minute
			if rapid.IntRange(0, 20).Draw(t, "jump") == 0 {
				jumps++
				now = now.Add(time.Duration(rapid.Int64Range(int64(-10*365*24*time.Hour), int64(10*365*24*time.Hour)).Draw(t, "by")))
			}
			take(plant(t, now))
		}
		if most := (1 + p.Burst) * (int(ran/p.MinInterval) + 1 + jumps); messages > most {
			t.Fatalf("%d messages in %v with %d jumps", messages, ran, jumps)
		}
		minutes := func(n int, f alert.Facts, want func(alert.Digest) bool) {
			t.Helper()
			found := false
			for range n {
				now = now.Add(time.Minute)
				found = found || want(take(f))
			}
			if !found {
				t.Fatal("no word of it")
			}
		}
		full := alert.Facts{Disk: alert.Disk{Path: "/d", Free: 1 << 25, Size: 1 << 40}}
		minutes(16, full, func(d alert.Digest) bool { return len(d.New) > 0 })
		minutes(2*60+16, full, func(d alert.Digest) bool { return len(d.Ongoing) > 0 })
		minutes(26, alert.Facts{}, func(d alert.Digest) bool { return len(d.Recovered) > 0 })
		if d := take(alert.Facts{}); d.Open > 0 {
			t.Fatalf("%d are open", d.Open)
		}
	})
}

// TestReminderAndRecoveryAfterTheClockWasAhead: what was told in a future that
// was none is told again and recovers, though a process of its own looks each
// time.
func TestReminderAndRecoveryAfterTheClockWasAhead(t *testing.T) {
	t.Parallel()
	k := &kept{t: t}
	full := alert.Facts{Disk: alert.Disk{Path: "/d", Free: 1 << 25, Size: 1 << 40}}
	k.update(start().AddDate(10, 0, 0), full)
	reminded, recovered := 0, 0
	for minute := range 25 * 60 {
		d, _ := k.update(start().Add(time.Duration(minute)*time.Minute), full)
		reminded += len(d.Ongoing)
	}
	k.update(start().AddDate(20, 0, 0), alert.Facts{})
	for minute := range 60 {
		d, _ := k.update(start().Add(time.Duration(minute)*time.Minute), alert.Facts{})
		recovered += len(d.Recovered)
	}
	if reminded != 1 || recovered != 1 {
		t.Errorf("%d reminders, %d recoveries", reminded, recovered)
	}
}

// TestWorseAgainIsTold: an alert that never ends because of one device does not
// hide the many that fail again.
func TestWorseAgainIsTold(t *testing.T) {
	t.Parallel()
	var tracker alert.Tracker
	now := start()
	told := 0
	for range 3 {
		for minute := range 12 * 60 {
			now = now.Add(time.Minute)
			failing := 1
			if minute < 60 {
				failing = 80
			}
			f := alert.Facts{Lifetime: 24 * time.Hour}
			for i := range failing {
				f.Troubles = append(f.Troubles, alert.Trouble{Device: fmt.Sprintf("d%02d", i), Class: enrol.ClassBusy, NotAfter: now.Add(9 * time.Hour)})
			}
			d, _ := tracker.Update(now, alert.Evaluate(now, f, alert.Thresholds{}), f.Unsure, alert.Policy{})
			told += len(d.New) + len(d.Worse)
		}
	}
	if told != 3 {
		t.Errorf("told %d times of 3", told)
	}
}

// TestClassThatChangesIsNoNews: a device that fails in two ways by turns is one
// trouble.
func TestClassThatChangesIsNoNews(t *testing.T) {
	t.Parallel()
	var tracker alert.Tracker
	now := start()
	messages := 0
	for i := range 40 {
		now = now.Add(20 * time.Minute)
		class := enrol.ClassBusy
		if i%2 == 0 {
			class = enrol.ClassUnreachable
		}
		f := alert.Facts{Lifetime: 24 * time.Hour, Troubles: []alert.Trouble{{Device: "d", Class: class, NotAfter: now.Add(9 * time.Hour)}}}
		if d, _ := tracker.Update(now, alert.Evaluate(now, f, alert.Thresholds{}), f.Unsure, alert.Policy{}); !d.Empty() {
			messages++
		}
	}
	if messages != 1 {
		t.Errorf("%d messages", messages)
	}
}

// TestCutListRecoversNothing: who has no room in the list of those in trouble
// is not well.
func TestCutListRecoversNothing(t *testing.T) {
	t.Parallel()
	now := start()
	f := alert.Facts{
		More: 3, Census: renewal.Census{Quarantined: 2, Expired: 1},
		Troubles: []alert.Trouble{{Device: "d", Class: enrol.ClassBusy, NotAfter: now.Add(9 * time.Hour)}}, Lifetime: 24 * time.Hour,
	}
	var keys []string
	for _, a := range alert.Evaluate(now, f, alert.Thresholds{}) {
		keys = append(keys, a.Key)
	}
	if want := []string{"expired", "quarantined", "failing:device-busy"}; !slices.Equal(keys, want) {
		t.Errorf("%v, want %v", keys, want)
	}
	var tracker alert.Tracker
	hook := alert.Facts{Lifetime: 24 * time.Hour, Troubles: []alert.Trouble{{Device: "h", Class: enrol.ClassHook, NotAfter: now.Add(9 * time.Hour)}}}
	tracker.Update(now, alert.Evaluate(now, hook, alert.Thresholds{}), hook.Unsure, alert.Policy{})
	for minute := range 60 {
		at := now.Add(time.Duration(minute) * time.Minute)
		if d, _ := tracker.Update(at, alert.Evaluate(at, f, alert.Thresholds{}), f.Unsure, alert.Policy{}); len(d.Recovered) > 0 {
			t.Fatalf("%+v", d.Recovered)
		}
	}
}

// TestManyMoreExpired: where a list is too long to say who is new, a tenth more
// is told.
func TestManyMoreExpired(t *testing.T) {
	t.Parallel()
	var tracker alert.Tracker
	now, told := start(), 0
	for count := 200; count <= 400; count++ {
		now = now.Add(20 * time.Minute)
		f := alert.Facts{More: count - 50, Census: renewal.Census{Expired: count}}
		for i := range 50 {
			f.Troubles = append(f.Troubles, alert.Trouble{Device: fmt.Sprintf("d%03d", (i+count)%1000), NotAfter: now.Add(-time.Hour)})
		}
		d, _ := tracker.Update(now, alert.Evaluate(now, f, alert.Thresholds{}), f.Unsure, alert.Policy{Remind: 1000 * time.Hour})
		told += len(d.New) + len(d.Worse)
	}
	if told != 8 {
		t.Errorf("told %d times", told)
	}
}
