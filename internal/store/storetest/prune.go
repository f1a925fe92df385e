package storetest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/store"
)

// testPruneModel compares with what the whole history of each device says. Each
// round has devices of its own, beside those of the rounds before.
func testPruneModel(t *testing.T, place Place[Overview]) {
	s, all := open(t, place), newPool(t)
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		p := &pool{leaves: all.leaves}
		for _, name := range all.names {
			p.names = append(p.names, fmt.Sprintf("%s-%d", name, round))
		}
		put(t, s, p.names...)
		for i := range rapid.IntRange(1, 10).Draw(rt, "enrolments") {
			p.drawPast(rt, t, s, byte(i+1))
		}
		for _, name := range p.names {
			if rapid.Bool().Draw(rt, "works on "+name) {
				commit(t, s, enrol.Change{Enrolment: unique(requested(name, 100))})
			}
		}
		before := epoch.Add(time.Duration(rapid.IntRange(-1, 11).Draw(rt, "before")) * time.Minute)
		limit := rapid.IntRange(1, 20).Draw(rt, "limit")
		want := map[string]store.History{}
		for _, name := range p.names {
			want[name] = remember(history(rt, s, name), before)
		}
		judgePrune(rt, s, before, limit)
		for _, name := range p.names {
			got := history(rt, s, name)
			if g, w := outline(got), outline(want[name]); g != w {
				rt.Fatalf("%s before %v:\n got %s\nwant %s", name, before, g, w)
			}
			if len(got.Certificates) != len(want[name].Certificates) || len(got.Addresses) != len(want[name].Addresses) {
				rt.Fatalf("%s has lost certificates or addresses", name)
			}
		}
	})
}

// testPruneAtOnce: what happened at one time goes on over transactions.
func testPruneAtOnce(t *testing.T, place Place[Overview]) {
	ctx := context.Background()
	s := open(t, place)
	put(t, s, "a")
	const many = 1100
	e := requested("a", 1)
	e.State = enrol.Failed
	c := enrol.Change{Enrolment: e}
	for range many {
		c.Events = append(c.Events, enrol.Event{At: epoch, Device: "a", Kind: enrol.EventWarning})
	}
	commit(t, s, c)
	for _, want := range []int{many - 100, 100, 0} {
		if n, err := s.Prune(ctx, epoch.Add(time.Hour), many-100); err != nil || n != want {
			t.Errorf("pruned %d, %v, want %d", n, err, want)
		}
	}
}

// judgePrune prunes until nothing is left to prune, and holds that the tallies
// do not change by it.
func judgePrune(t *rapid.T, s Overview, before time.Time, limit int) {
	ctx := context.Background()
	tallies := func() string {
		counts, steps, err := s.Tallies(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(counts, steps)
	}
	counted := tallies()
	for {
		n, err := s.Prune(ctx, before, limit)
		if err != nil || n > limit {
			t.Fatalf("pruned %d of %d, %v", n, limit, err)
		}
		if n == 0 {
			break
		}
	}
	if now := tallies(); now != counted {
		t.Fatalf("%s was counted, %s is", counted, now)
	}
}

// drawPast makes an enrolment that has ended, with what happened in it.
func (p *pool) drawPast(rt *rapid.T, t testing.TB, s Overview, id byte) {
	name := rapid.SampledFrom(p.names).Draw(rt, "device")
	minute := func(label string) time.Time {
		return epoch.Add(time.Duration(rapid.IntRange(0, 10).Draw(rt, label)) * time.Minute)
	}
	e, d := unique(requested(name, id)), device(t, s, name)
	e.State, e.UpdatedAt = enrol.Failed, minute("updated at")
	if rapid.Bool().Draw(rt, "has certificate") {
		leaf := p.drawLeaf(rt, "certificate")
		e.Certificate = leaf.Raw
		if rapid.Bool().Draw(rt, "is active") {
			described := enrol.Describe(leaf)
			e.State, d.Certificate = enrol.Completed, &described
		}
	}
	c := enrol.Change{Enrolment: e, Device: &d}
	for i := range rapid.IntRange(0, 4).Draw(rt, "events") {
		event := enrol.Event{At: minute("at"), Device: name, State: e.State, Kind: rapid.SampledFrom(enrol.EventKinds()).Draw(rt, "kind"), Message: fmt.Sprint(id, i)}
		if rapid.Bool().Draw(rt, "of the enrolment") {
			event.Enrolment = e.ID
		}
		if event.Kind == enrol.EventRetry || event.Kind == enrol.EventFailed {
			event.Class = enrol.ClassUnreachable
		}
		c.Events = append(c.Events, event)
	}
	commit(t, s, c)
}

// unique makes the ID of an enrolment one of its device.
func unique(e *enrol.Enrolment) *enrol.Enrolment {
	copy(e.ID[1:], e.Device)
	return e
}

func history(t *rapid.T, s Overview, name string) store.History {
	h, err := s.History(context.Background(), name, 0)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// remember takes away from a history what may be forgotten.
func remember(h store.History, before time.Time) store.History {
	var active [32]byte
	if c := h.Device.Certificate; c != nil {
		active = c.SHA256
	}
	needed, lastFailure := map[enrol.ID]bool{}, -1
	for i, e := range h.Enrolments {
		needed[e.ID] = i == len(h.Enrolments)-1 || !e.State.Final() || len(e.Certificate) > 0 && sha256.Sum256(e.Certificate) == active
	}
	for i, e := range h.Events {
		if e.Class != "" {
			lastFailure = i
		}
	}
	passing := []enrol.EventKind{
		enrol.EventProgress, enrol.EventRetry, enrol.EventWarning, enrol.EventFailed, enrol.EventQueued, enrol.EventNotDelivered,
	}
	out := h
	out.Events, out.Enrolments = nil, nil
	mentioned := map[enrol.ID]bool{}
	for i, e := range h.Events {
		if slices.Contains(passing, e.Kind) && e.At.Before(before) && !needed[e.Enrolment] && i != lastFailure {
			continue
		}
		mentioned[e.Enrolment] = true
		out.Events = append(out.Events, e)
	}
	for _, e := range h.Enrolments {
		if e.State == enrol.Failed && len(e.Certificate) == 0 && e.UpdatedAt.Before(before) && !needed[e.ID] && !mentioned[e.ID] {
			continue
		}
		out.Enrolments = append(out.Enrolments, e)
	}
	return out
}

// outline is what a history has of events and enrolments.
func outline(h store.History) string {
	var out []string
	for _, e := range h.Events {
		out = append(out, string(e.Kind)+" "+e.Message)
	}
	for _, e := range h.Enrolments {
		out = append(out, fmt.Sprint(e.ID[0], e.State))
	}
	return fmt.Sprint(out)
}
