package storetest

import (
	"cmp"
	"context"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/renewal"
	"github.com/edgeclm/edgeclm/internal/store"
)

func due(t testing.TB, s Inventory, f store.Filter, now time.Time) []string {
	t.Helper()
	found, err := s.DueJobs(context.Background(), f, now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return jobNames(found)
}

func jobNames(jobs []renewal.Job) []string {
	var names []string
	for _, j := range jobs {
		names = append(names, j.Device)
	}
	return names
}

func testDue(t *testing.T, place Place[Inventory]) {
	ctx := context.Background()
	s := open(t, place)
	ca := newIssuer(t, "ca")
	put(t, s, "none", "fresh", "old", "paused", "waiting", "new")
	failed := func(name string, id byte) {
		t.Helper()
		d, e := device(t, s, name), requested(name, id)
		e.State, d.LastError = enrol.Failed, "its CSR was wrong"
		commit(t, s, enrol.Change{Enrolment: e, Device: &d})
	}
	failed("none", 4) // "new" was never tried, and is never due
	enrolled := func(name string, id byte, lifetime time.Duration) {
		t.Helper()
		commit(t, s, complete(requested(name, id), device(t, s, name), ca.issue(t, int64(id), name, lifetime), epoch))
	}
	enrolled("fresh", 1, 10*time.Hour) // due at 5 h
	enrolled("old", 2, 4*time.Hour)    // due at 2 h
	if err := s.SetPaused(ctx, action("paused", ""), true); err != nil {
		t.Fatal(err)
	}
	d, e := device(t, s, "waiting"), requested("waiting", 3)
	d.NextAttempt = epoch.Add(time.Hour)
	commit(t, s, enrol.Change{Enrolment: e, Device: &d})

	at := func(d time.Duration) []string { return due(t, s, store.Filter{}, epoch.Add(d)) }
	same(t, "at first", at(0), []string{"none"})
	same(t, "just before the hour", at(time.Hour-time.Microsecond), []string{"none"})
	same(t, "after an hour", at(time.Hour), []string{"none", "waiting"})
	same(t, "after two hours", at(2*time.Hour), []string{"none", "waiting", "old"})
	same(t, "after six hours", at(6*time.Hour), []string{"none", "waiting", "old", "fresh"})
	same(t, "by label", due(t, s, store.Filter{Labels: map[string]string{"line": "3"}}, epoch.Add(6*time.Hour)), []string{"old"})
	same(t, "by name", due(t, s, store.Filter{Names: []string{"old", "fresh", "paused"}}, epoch.Add(2*time.Hour)), []string{"old"})

	// Our clock was ahead by years and is right again: nothing waits for it.
	same(t, "in 1999", due(t, s, store.Filter{}, time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)), []string{"none", "waiting", "old", "fresh"})

	// With an open enrolment a device is due whatever its certificate says.
	commit(t, s, enrol.Change{Enrolment: requested("fresh", 9)})
	same(t, "with an open enrolment", at(0), []string{"none", "fresh"})

	next := func(now time.Duration, want time.Time) {
		t.Helper()
		got, err := s.NextDue(ctx, epoch.Add(now))
		if err != nil {
			t.Fatal(err)
		}
		same(t, "next", got, want)
	}
	next(0, epoch.Add(time.Hour))
	next(time.Hour, device(t, s, "old").RenewAt)
	next(9*time.Hour, time.Time{})

	// A renewal that a wrong clock has put off beyond the certificate's
	// lifetime is no reason to sleep longer than until the next attempt.
	d, e = device(t, s, "old"), requested("old", 10)
	e.State, d.NextAttempt, d.RenewAt = enrol.Failed, epoch.Add(30*time.Minute), epoch.AddDate(70, 0, 0)
	commit(t, s, enrol.Change{Enrolment: e, Device: &d})
	next(0, epoch.Add(30*time.Minute))
	same(t, "put off", at(30*time.Minute), []string{"none", "old", "fresh"})
}

// testDueModel compares with the core's own judgement on every device.
func testDueModel(t *testing.T, place func(t testing.TB) Place[Inventory]) {
	p := newPool(t)
	rapid.Check(t, func(rt *rapid.T) {
		s := place(t)(t)
		defer func() {
			if err := s.Close(); err != nil {
				rt.Fatal(err)
			}
		}()
		put(t, s, p.names...)
		for i, name := range p.names {
			p.drawFate(rt, t, s, name, byte(2*i))
		}
		now := epoch.Add(time.Duration(rapid.IntRange(-300, 300).Draw(rt, "now")) * time.Minute)
		if rapid.Bool().Draw(rt, "odd") {
			now = now.Add(time.Duration(rapid.IntRange(-1, 1).Draw(rt, "off")) * time.Nanosecond)
		}
		longest := time.Duration(rapid.IntRange(0, 90).Draw(rt, "longest")) * time.Minute
		judgeDue(rt, s, now, longest)
	})
}

// drawFate gives a device random times, and perhaps an open enrolment.
func (p *pool) drawFate(rt *rapid.T, t testing.TB, s Inventory, name string, id byte) {
	d, e := device(t, s, name), requested(name, id+1)
	d.NextAttempt = drawTime(rt, "next attempt")
	d.LastError = rapid.SampledFrom([]string{"", "unreachable"}).Draw(rt, "last error")
	d.Quarantined = rapid.IntRange(0, 6).Draw(rt, "quarantined") == 0
	e.State = rapid.SampledFrom([]enrol.State{enrol.Submitted, enrol.Completed, enrol.Failed}).Draw(rt, "state")
	if rapid.Bool().Draw(rt, "has certificate") {
		leaf := p.drawLeaf(rt, "certificate")
		d.EnrolledAt = leaf.NotBefore
		described := enrol.Describe(leaf)
		e.Certificate, d.Certificate, d.RenewAt = leaf.Raw, &described, drawTime(rt, "renew at")
	}
	commit(t, s, enrol.Change{Enrolment: e, Device: &d})
	if rapid.IntRange(0, 6).Draw(rt, "paused") == 0 {
		if err := s.SetPaused(context.Background(), action(name, ""), true); err != nil {
			rt.Fatal(err)
		}
	}
	if rapid.IntRange(0, 6).Draw(rt, "decommissioned") == 0 {
		if err := s.Decommission(context.Background(), action(name, "")); err != nil {
			rt.Fatal(err)
		}
	}
}

// judgeDue looks at every device.
func judgeDue(t *rapid.T, s Inventory, now time.Time, longest time.Duration) {
	ctx := context.Background()
	devices, err := store.Collect(s.ListDevices(ctx, store.Filter{}))
	if err != nil {
		t.Fatal(err)
	}
	devices = slices.DeleteFunc(devices, func(d fleet.Device) bool {
		_, err := s.OpenEnrolment(ctx, d.Name)
		return d.Paused || d.Quarantined || fleet.Waits(d.NextAttempt, now, longest) || err != nil && (!d.Tried() || !d.Due(now))
	})
	slices.SortStableFunc(devices, func(a, b fleet.Device) int {
		var endA, endB time.Time
		if a.Certificate != nil {
			endA = a.Certificate.NotAfter
		}
		if b.Certificate != nil {
			endB = b.Certificate.NotAfter
		}
		return cmp.Or(endA.Compare(endB), cmp.Compare(a.Name, b.Name))
	})
	got, err := s.DueJobs(ctx, store.Filter{}, now, longest)
	if err != nil {
		t.Fatal(err)
	}
	var want []renewal.Job
	for _, d := range devices {
		j := renewal.Job{Device: d.Name, Due: d.RenewAt, Failing: d.LastError != ""}
		if c := d.Certificate; c != nil {
			j.NotAfter = c.NotAfter
			if c.NotAfter.Before(j.Due) {
				j.Due = c.NotAfter
			}
		}
		want = append(want, j)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("at %v: %v are due, want %v", now, got, want)
	}

	// Nothing becomes due between now and the time that NextDue says.
	next, err := s.NextDue(ctx, now)
	if err != nil {
		t.Fatal(err)
	}
	if next.IsZero() {
		return
	}
	if !next.After(now) {
		t.Fatalf("the next one after %v is due at %v", now, next)
	}
	before, err := s.DueJobs(ctx, store.Filter{}, next.Add(-time.Microsecond), 1<<62)
	if err != nil {
		t.Fatal(err)
	}
	atNow, err := s.DueJobs(ctx, store.Filter{}, now, 1<<62)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range jobNames(before) {
		if !slices.Contains(jobNames(atNow), name) {
			t.Fatalf("%s becomes due between %v and %v", name, now, next)
		}
	}
}
