package storetest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeclm/edgeclm/internal/alert"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/renewal"
	"github.com/edgeclm/edgeclm/internal/store"
)

// Overview is what the dashboard, the alerts and the metrics need of an
// inventory.
type Overview interface {
	Inventory
	enrol.HealthStore
	enrol.Planner
	// Renewals counts the devices that become due in each of n steps from a
	// time on, of those that are neither paused nor quarantined.
	Renewals(ctx context.Context, from time.Time, step time.Duration, n int) ([]int, error)
	// Census counts the fleet at now; longest as in DueJobs.
	Census(ctx context.Context, now time.Time, longest time.Duration) (renewal.Census, error)
	// Patience returns since when the first device waits for its renewal,
	// whenever it is tried again, and how long the shortest-lived of the valid
	// certificates lives.
	Patience(ctx context.Context, now time.Time) (since time.Time, shortest time.Duration, err error)
	// Rows returns the next devices by name after one, at most limit (0: all).
	Rows(ctx context.Context, after string, limit int) ([]renewal.Row, error)
	// RowsOf returns the rows of these devices; others are left out.
	RowsOf(ctx context.Context, names []string) ([]renewal.Row, error)
	// Entries returns the events of all devices after one, oldest first.
	Entries(ctx context.Context, after int64, limit int) ([]renewal.Entry, error)
	// LastEntry returns the ID of the newest event; 0: there is none.
	LastEntry(ctx context.Context) (int64, error)
	// Troubles returns the devices that fail, are quarantined or expired, those
	// whose certificates end first in front, and how many there are beyond limit.
	Troubles(ctx context.Context, now time.Time, limit int) ([]alert.Trouble, int, error)
	// Tallies returns how often what happened, and how long it took.
	Tallies(ctx context.Context) ([]renewal.Count, []renewal.Step, error)
	// Prune deletes at most limit records of what happened before a time and no
	// audit needs, and returns how many it deleted.
	Prune(ctx context.Context, before time.Time, limit int) (int, error)
}

// RunOverview runs the suite of what the overview needs; RunInventory is not
// part of it.
func RunOverview(t *testing.T, place func(t testing.TB) Place[Overview]) {
	runEach(t, place, map[string]func(*testing.T, Place[Overview]){
		"Reached":     testReached,
		"Rows":        testRows,
		"Entries":     testEntries,
		"Troubles":    testTroubles,
		"Tallies":     testTallies,
		"Breaker":     testBreaker,
		"BreakerRace": testBreakerRace,
		"PruneAtOnce": testPruneAtOnce,
		"PruneModel":  testPruneModel,

		"DecommissionOverview": testDecommissionOverview,
	})
	t.Run("CensusModel", func(t *testing.T) { testCensusModel(t, place) })
}

// testCensusModel compares with what a look at every device says.
func testCensusModel(t *testing.T, place func(t testing.TB) Place[Overview]) {
	p := newPool(t)
	rapid.Check(t, func(rt *rapid.T) {
		s := place(t)(t)
		defer func() {
			if err := s.Close(); err != nil {
				rt.Fatal(err)
			}
		}()
		names := slices.Concat(p.names, []string{"x1", "x2", "x3"})
		put(t, s, names...)
		for i, name := range names {
			if rapid.IntRange(0, 5).Draw(rt, "touched") > 0 {
				p.drawFate(rt, t, s, name, byte(2*i))
			}
		}
		now := epoch.Add(time.Duration(rapid.IntRange(-300, 300).Draw(rt, "now")) * time.Minute)
		longest := time.Duration(rapid.IntRange(0, 90).Draw(rt, "longest")) * time.Minute
		judgeCensus(rt, s, now, longest)
	})
}

func judgeCensus(t *rapid.T, s Overview, now time.Time, longest time.Duration) {
	ctx := context.Background()
	got, err := s.Census(ctx, now, longest)
	if err != nil {
		t.Fatal(err)
	}
	devices, err := store.Collect(s.ListDevices(ctx, store.Filter{}))
	if err != nil {
		t.Fatal(err)
	}
	due, err := s.DueJobs(ctx, store.Filter{}, now, longest)
	if err != nil {
		t.Fatal(err)
	}
	want := renewal.Census{At: now, Total: len(devices), Due: len(due), LastTry: got.LastTry}
	if want.NextDue, err = s.NextDue(ctx, now); err != nil {
		t.Fatal(err)
	}
	want.LastSuccess = lastSuccess(t, s)
	planned := map[int]int{}
	for _, d := range devices {
		held := d.Paused || d.Quarantined
		count(&want.Failing, d.LastError != "")
		count(&want.Quarantined, d.Quarantined)
		count(&want.Paused, d.Paused)
		count(&want.NeverReached, !d.Paused)
		_, err := s.OpenEnrolment(ctx, d.Name)
		count(&want.Unfinished, err == nil)
		switch c := d.Certificate; {
		case c == nil:
			want.NeverEnrolled++
		case now.Before(c.NotAfter):
			want.Operational++
			if !held && (want.FirstExpiry.IsZero() || c.NotAfter.Before(want.FirstExpiry)) {
				want.FirstExpiry = c.NotAfter
			}
		default:
			want.Expired++
		}
		if !held && !d.RenewAt.IsZero() && !d.RenewAt.Before(epoch) {
			planned[int(d.RenewAt.Sub(epoch)/time.Hour)]++
		}
	}
	if want.NeverReached > 0 {
		want.UnreachedSince = epoch
	}
	// Of several that end at once any is the first.
	if want.FirstExpiring = got.FirstExpiring; got.FirstExpiring != "" {
		if d, err := s.Device(ctx, got.FirstExpiring); err != nil || d.Certificate == nil || !d.Certificate.NotAfter.Equal(got.FirstExpiry) {
			t.Fatalf("%s is said to end first: %+v, %v", got.FirstExpiring, d, err)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("at %v:\n got %+v\nwant %+v", now, got, want)
	}
	counts, err := s.Renewals(ctx, epoch, time.Hour, 4)
	if err != nil || !slices.Equal(counts, []int{planned[0], planned[1], planned[2], planned[3]}) {
		t.Fatalf("renewals %v, %v, want %v", counts, err, planned)
	}
	judgePatience(t, s, now, devices)
}

// lastSuccess is of any device, whatever became of it.
func lastSuccess(t *rapid.T, s Overview) (last time.Time) {
	for d, err := range s.ListDevices(context.Background(), store.Filter{Decommissioned: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if d.EnrolledAt.After(last) {
			last = d.EnrolledAt
		}
	}
	return last
}

func judgePatience(t *rapid.T, s Overview, now time.Time, devices []fleet.Device) {
	since, shortest, err := s.Patience(context.Background(), now)
	if err != nil {
		t.Fatal(err)
	}
	var want time.Duration
	var waits time.Time
	for _, d := range devices {
		if c := d.Certificate; c != nil && !d.Paused && !d.Quarantined && !d.RenewAt.IsZero() && !d.RenewAt.After(now) {
			// Also if its next try is ahead.
			at := d.RenewAt
			if c.NotAfter.Before(at) {
				at = c.NotAfter
			}
			if waits.IsZero() || at.Before(waits) {
				waits = at
			}
		}
		if c := d.Certificate; c != nil && c.NotAfter.After(now) {
			if life := c.NotAfter.Sub(c.NotBefore); want == 0 || life < want {
				want = life
			}
		}
	}
	if shortest != want {
		t.Fatalf("the shortest life is %v, want %v", shortest, want)
	}
	if !since.Equal(waits) {
		t.Fatalf("the first waits since %v, want %v", since, waits)
	}
}

func count(n *int, is bool) {
	if is {
		*n++
	}
}

// testReached: a device was reached once it has proved its identity, by an
// enrolment or otherwise.
func testReached(t *testing.T, place Place[Overview]) {
	s, ctx := open(t, place), context.Background()
	put(t, s, "a", "b", "c", "d")
	tried := func(want time.Time) {
		t.Helper()
		if c, err := s.Census(ctx, epoch, time.Hour); err != nil || !c.LastTry.Equal(want) {
			t.Errorf("the last try was at %v, %v, want %v", c.LastTry, err, want)
		}
	}
	tried(time.Time{})
	never := func(want int) {
		t.Helper()
		c, err := s.Census(ctx, epoch, time.Hour)
		if err != nil || c.NeverReached != want {
			t.Errorf("%d were never reached, %v, want %d", c.NeverReached, err, want)
		}
	}
	never(4)
	e := requested("a", 1)
	retry := enrol.Event{At: epoch, Device: "a", Enrolment: e.ID, State: enrol.Requested, Kind: enrol.EventRetry, Class: enrol.ClassUnreachable}
	commit(t, s, enrol.Change{Enrolment: e, Events: []enrol.Event{retry}})
	never(4)
	tried(epoch)
	progress := enrol.Event{At: epoch, Device: "a", Enrolment: e.ID, State: enrol.CSRReceived, Kind: enrol.EventProgress}
	commit(t, s, enrol.Change{Enrolment: e, Events: []enrol.Event{progress}})
	never(3)
	if err := s.PutSighting(ctx, enrol.Sighting{Device: "b", Identity: deviceIdentity("b", 1), At: epoch}); err != nil {
		t.Fatal(err)
	}
	never(2)
	if err := s.SetPaused(ctx, action("c", ""), true); err != nil {
		t.Fatal(err)
	}
	never(1)
}

func testRows(t *testing.T, place Place[Overview]) {
	s, ctx := open(t, place), context.Background()
	put(t, s, "b", "a", "d", "c")
	leaf := newIssuer(t, "ca").issue(t, 1, "b", 4*time.Hour)
	commit(t, s, complete(requested("b", 1), device(t, s, "b"), leaf, epoch))
	rows, err := s.Rows(ctx, "", 3)
	if err != nil || len(rows) != 3 || rows[0].Name != "a" || rows[2].Name != "c" {
		t.Fatalf("%+v, %v", rows, err)
	}
	d, r := device(t, s, "b"), rows[1]
	want := renewal.Row{
		Name: "b", Address: d.Address, Labels: d.Labels, NotBefore: d.Certificate.NotBefore, NotAfter: d.Certificate.NotAfter,
		EnrolledAt: d.EnrolledAt, RenewAt: d.RenewAt,
	}
	same(t, "row", r, want)
	if rows, err = s.Rows(ctx, "c", 3); err != nil || len(rows) != 1 || rows[0].Name != "d" {
		t.Errorf("the rest: %+v, %v", rows, err)
	}
	if rows, err = s.Rows(ctx, "", 0); err != nil || len(rows) != 4 || !maps.Equal(rows[0].Labels, device(t, s, "a").Labels) {
		t.Errorf("all: %+v, %v", rows, err)
	}
	if rows, err = s.RowsOf(ctx, []string{"d", "nobody", "b"}); err != nil || len(rows) != 2 {
		t.Errorf("by name: %+v, %v", rows, err)
	}
}

func testEntries(t *testing.T, place Place[Overview]) {
	s, ctx := open(t, place), context.Background()
	if id, err := s.LastEntry(ctx); err != nil || id != 0 {
		t.Errorf("the last of none is %d, %v", id, err)
	}
	put(t, s, "a", "b")
	before, err := s.LastEntry(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var want []enrol.Event
	for i := range 5 {
		e := enrol.Event{At: epoch, Device: []string{"a", "b"}[i%2], Kind: enrol.EventWarning, Message: fmt.Sprint(i)}
		if err := s.Note(ctx, store.Action{Device: e.Device, At: epoch, Reason: e.Message}, e.Kind); err != nil {
			t.Fatal(err)
		}
		want = append(want, e)
	}
	var got []enrol.Event
	for after := before; ; {
		page, err := s.Entries(ctx, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page {
			if e.ID <= after {
				t.Errorf("%d comes after %d", e.ID, after)
			}
			after = e.ID
			got = append(got, e.Event)
		}
		if len(page) < 2 {
			break
		}
	}
	same(t, "entries", got, want)
	if last, err := s.LastEntry(ctx); err != nil || last <= before {
		t.Errorf("the last is %d, %v", last, err)
	}
}

func testTroubles(t *testing.T, place Place[Overview]) {
	s, ctx := open(t, place), context.Background()
	ca := newIssuer(t, "ca")
	put(t, s, "fine", "fails", "ended", "held", "paused")
	for i, name := range []string{"fine", "fails", "ended", "paused"} {
		life := []time.Duration{9 * time.Hour, 5 * time.Hour, time.Hour, time.Hour}[i]
		commit(t, s, complete(requested(name, byte(i+1)), device(t, s, name), ca.issue(t, int64(i+1), name, life), epoch))
	}
	fail := func(name string, id byte, after time.Duration, class enrol.Class) {
		t.Helper()
		d, e := device(t, s, name), requested(name, id)
		e.State, d.LastError, d.Quarantined = enrol.Failed, "no "+string(class), name == "held"
		event := enrol.Event{At: epoch.Add(after), Device: name, Enrolment: e.ID, Kind: enrol.EventFailed, Class: class}
		commit(t, s, enrol.Change{Enrolment: e, Device: &d, Events: []enrol.Event{event}})
	}
	fail("fails", 10, time.Hour, enrol.ClassUnreachable)
	fail("fails", 11, 2*time.Hour, enrol.ClassCARejected)
	fail("held", 12, 3*time.Hour, enrol.ClassHook)
	if err := s.SetPaused(ctx, action("paused", ""), true); err != nil {
		t.Fatal(err)
	}
	got, more, err := s.Troubles(ctx, epoch.Add(2*time.Hour), 10)
	if err != nil || more != 0 || len(got) != 3 {
		t.Fatalf("%+v, %d more, %v", got, more, err)
	}
	end := func(name string) time.Time { return device(t, s, name).Certificate.NotAfter }
	same(t, "troubles", got, []alert.Trouble{
		{Device: "held", Class: enrol.ClassHook, LastError: "no hook-failed", Since: epoch.Add(3 * time.Hour), Quarantined: true},
		{Device: "ended", EnrolledAt: epoch, NotAfter: end("ended")},
		{Device: "fails", Class: enrol.ClassCARejected, LastError: "no ca-rejected", Since: epoch.Add(time.Hour), EnrolledAt: epoch, NotAfter: end("fails")},
	})
	if got, more, err = s.Troubles(ctx, epoch.Add(2*time.Hour), 2); err != nil || more != 1 || len(got) != 2 {
		t.Errorf("%+v, %d more, %v", got, more, err)
	}
}

func testTallies(t *testing.T, place Place[Overview]) {
	s, ctx := open(t, place), context.Background()
	put(t, s, "a")
	ca := newIssuer(t, "ca")
	for i, took := range []time.Duration{3 * time.Millisecond, 40 * time.Millisecond, 20 * time.Minute} {
		e := requested("a", byte(i+1))
		e.Steps = enrol.Steps{Enrolment: took}
		c := complete(e, device(t, s, "a"), ca.issue(t, int64(i+1), "a", time.Hour), epoch)
		c.Events = append(c.Events, enrol.Event{At: epoch, Device: "a", Enrolment: e.ID, Kind: enrol.EventRetry, Class: enrol.ClassHook})
		commit(t, s, c)
	}
	counts, steps, err := s.Tallies(ctx)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for _, c := range counts {
		got[string(c.Kind)+" "+string(c.Class)] = c.N
	}
	if want := map[string]uint64{"commissioned ": 1, "completed ": 3, "retry hook-failed": 3}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for _, step := range steps {
		if step.Name != "enrolment" && step.Name != "total" {
			continue
		}
		if step.N != 3 || step.Sum != 20*time.Minute+43*time.Millisecond ||
			step.Buckets[5*time.Millisecond] != 1 || step.Buckets[25*time.Millisecond] != 1 || step.Buckets[50*time.Millisecond] != 2 || step.Buckets[5*time.Minute] != 2 {
			t.Errorf("%+v", step)
		}
	}
	if len(steps) != 6 {
		t.Errorf("%d steps", len(steps))
	}
}

func testBreaker(t *testing.T, place Place[Overview]) {
	s, ctx := open(t, place), context.Background()
	b, err := s.Breaker(ctx, "plant")
	if err != nil {
		t.Fatal(err)
	}
	same(t, "of a CA that nobody asked", b, enrol.Breaker{CA: "plant", State: enrol.BreakerClosed})
	want := enrol.Breaker{
		CA: "plant", State: enrol.BreakerOpen, Strikes: 2, Rejected: []string{"a"}, Mismatched: []enrol.Mismatch{{Device: "b", At: epoch}},
		Opened: 3, OpenedAt: epoch, Until: epoch.Add(time.Hour), Class: enrol.ClassCAUnavail, LastError: "gone", Latency: time.Second,
	}
	if _, err := s.UpdateBreaker(ctx, "plant", func(b *enrol.Breaker) bool { *b = want; return true }); err != nil {
		t.Fatal(err)
	}
	if _, err := s.UpdateBreaker(ctx, "plant", func(b *enrol.Breaker) bool { b.Strikes = 99; return false }); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s, place)
	if b, err = s.Breaker(ctx, "plant"); err != nil {
		t.Fatal(err)
	}
	same(t, "breaker", b, want)
	if b, err = s.Breaker(ctx, "other"); err != nil {
		t.Fatal(err)
	}
	same(t, "of another CA", b, enrol.Breaker{CA: "other", State: enrol.BreakerClosed})
}

// testBreakerRace: what several find out about a CA at once adds up.
func testBreakerRace(t *testing.T, place Place[Overview]) {
	stores := []Overview{open(t, place), open(t, place)}
	const each = 20
	failures := make(chan error)
	for _, s := range stores {
		for range 2 {
			go func() {
				var failed error
				for range each {
					_, err := s.UpdateBreaker(context.Background(), "plant", func(b *enrol.Breaker) bool { b.Strikes++; return true })
					failed = errors.Join(failed, err)
				}
				failures <- failed
			}()
		}
	}
	for range 2 * len(stores) {
		if err := <-failures; err != nil {
			t.Error(err)
		}
	}
	if b, err := stores[0].Breaker(context.Background(), "plant"); err != nil || b.Strikes != 2*each*len(stores) {
		t.Errorf("%d strikes, %v", b.Strikes, err)
	}
}
