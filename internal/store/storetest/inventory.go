package storetest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/store"
)

func names(devices []fleet.Device) []string {
	out := make([]string, len(devices))
	for i, d := range devices {
		out[i] = d.Name
	}
	return out
}

func testList(t *testing.T, place Place[Inventory]) {
	ctx := context.Background()
	s := open(t, place)
	put(t, s, "plc-2", "plc-10", "plc-1", "a", "z:9") // of lines 1 to 5
	for _, c := range []struct {
		filter store.Filter
		want   []string
	}{
		{store.Filter{}, []string{"a", "plc-1", "plc-10", "plc-2", "z:9"}},
		{store.Filter{Names: []string{"z:9", "plc-1", "z:9"}}, []string{"plc-1", "z:9"}},
		{store.Filter{Labels: map[string]string{"site": "bilbao"}}, []string{"a", "plc-1", "plc-10", "plc-2", "z:9"}},
		{store.Filter{Labels: map[string]string{"site": "bilbao", "line": "3"}}, []string{"plc-1"}},
		{store.Filter{Labels: map[string]string{"line": ""}}, nil},
		{store.Filter{Names: []string{"a", "plc-1"}, Labels: map[string]string{"line": "3"}}, []string{"plc-1"}},
	} {
		devices, err := store.Collect(s.ListDevices(ctx, c.filter))
		if err != nil {
			t.Errorf("%+v: %v", c.filter, err)
		}
		same(t, fmt.Sprintf("%+v", c.filter), names(devices), c.want)
		for _, d := range devices {
			same(t, "row", d, device(t, s, d.Name))
		}
		if n, err := s.CountDevices(ctx, c.filter); err != nil || n != len(c.want) {
			t.Errorf("%+v: counted %d, %v", c.filter, n, err)
		}
	}
	unknown := store.Filter{Names: []string{"plc-1", "plc-99"}}
	_, err := store.Collect(s.ListDevices(ctx, unknown))
	wantError(t, "list", err, enrol.ErrNotFound)
	_, err = s.CountDevices(ctx, unknown)
	wantError(t, "count", err, enrol.ErrNotFound)
	_, err = s.DueJobs(ctx, unknown, epoch, time.Hour)
	wantError(t, "due", err, enrol.ErrNotFound)
}

// testListStops: who stops listening leaves nothing behind that blocks others.
func testListStops(t *testing.T, place Place[Inventory]) {
	s := open(t, place)
	put(t, s, "plc-1", "plc-2", "plc-3")
	for range 20 {
		for d, err := range s.ListDevices(context.Background(), store.Filter{}) {
			if err != nil || d.Name != "plc-1" {
				t.Fatalf("%s, %v", d.Name, err)
			}
			break
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := store.Collect(s.ListDevices(ctx, store.Filter{}))
	wantError(t, "a cancelled list", err, context.Canceled)
}

func action(name, reason string) store.Action {
	return store.Action{Device: name, At: epoch.Add(time.Hour), Reason: reason}
}

// lastEvents returns the kinds of a device's events but for its commissioning.
func lastEvents(t testing.TB, s Inventory, name string) []string {
	t.Helper()
	h, err := s.History(context.Background(), name, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range h.Events {
		if e.Kind != store.EventCommissioned {
			out = append(out, string(e.Kind)+": "+e.Message)
		}
	}
	return out
}

func testPause(t *testing.T, place Place[Inventory]) {
	ctx := context.Background()
	s := open(t, place)
	put(t, s, "plc-1", "plc-2")
	for _, paused := range []bool{false, true, true, false, true} {
		if err := s.SetPaused(ctx, action("plc-1", "maintenance"), paused); err != nil {
			t.Fatal(err)
		}
		if device(t, s, "plc-1").Paused != paused || device(t, s, "plc-2").Paused {
			t.Errorf("set %v: %v and %v", paused, device(t, s, "plc-1").Paused, device(t, s, "plc-2").Paused)
		}
	}
	same(t, "events", lastEvents(t, s, "plc-1"), []string{"paused: maintenance", "resumed: maintenance", "paused: maintenance"})
	wantError(t, "unknown", s.SetPaused(ctx, action("plc-9", ""), true), enrol.ErrNotFound)
}

func testLabels(t *testing.T, place Place[Inventory]) {
	ctx := context.Background()
	s := open(t, place)
	put(t, s, "plc-1")
	manual := map[string]string{"owner": "maría"}
	set := func(labels map[string]string) {
		t.Helper()
		if err := s.SetLabels(ctx, action("plc-1", "moved"), labels); err != nil {
			t.Fatal(err)
		}
	}
	set(manual)
	same(t, "labels", device(t, s, "plc-1").Labels, manual)
	put(t, s, "plc-0", "plc-1") // of a higher ledger index now
	same(t, "labels after a later manifest", device(t, s, "plc-1").Labels, manual)
	listed, err := store.Collect(s.ListDevices(ctx, store.Filter{Labels: manual}))
	if err != nil || len(listed) != 1 {
		t.Errorf("listed by it: %v, %v", listed, err)
	}
	set(map[string]string{})
	same(t, "no labels", device(t, s, "plc-1").Labels, map[string]string{})
	set(nil)
	same(t, "the manifest's labels", device(t, s, "plc-1").Labels, row("plc-1", 1, 2).Labels)
	set(nil)
	same(t, "events", lastEvents(t, s, "plc-1"), []string{"labelled: moved", "labelled: moved", "labelled: moved"})
	wantError(t, "not a label", s.SetLabels(ctx, action("plc-1", ""), map[string]string{"": ""}), store.ErrInvalid)
	wantError(t, "unknown", s.SetLabels(ctx, action("plc-9", ""), manual), enrol.ErrNotFound)
}

func testRelease(t *testing.T, place Place[Inventory]) {
	ctx := context.Background()
	s := open(t, place)
	put(t, s, "plc-1")
	d, e := device(t, s, "plc-1"), requested("plc-1", 1)
	before := d
	e.State = enrol.Failed
	d.Quarantined, d.Attempts, d.NextAttempt, d.LastError = true, 3, epoch.Add(time.Hour), "refused"
	commit(t, s, enrol.Change{Enrolment: e, Device: &d})
	for range 2 {
		if err := s.Release(ctx, action("plc-1", "cable replaced")); err != nil {
			t.Fatal(err)
		}
	}
	before.LastError = "refused"
	same(t, "device", device(t, s, "plc-1"), before)
	same(t, "events", lastEvents(t, s, "plc-1"), []string{"released: cable replaced"})
	wantError(t, "unknown", s.Release(ctx, action("plc-9", "")), enrol.ErrNotFound)
}

func testHistory(t *testing.T, place Place[Inventory]) {
	ctx := context.Background()
	s := open(t, place)
	put(t, s, "plc-1", "plc-2")
	ca := newIssuer(t, "ca")
	failed := full("plc-1", ca.issue(t, 1, "plc-1", time.Hour), ca.issue(t, 50, "issuing", time.Hour).Raw)
	failed.State = enrol.Failed
	events := []enrol.Event{
		{
			At: epoch.Add(time.Second), Device: "plc-1", Enrolment: failed.ID, State: enrol.Submitted, Kind: enrol.EventFailed,
			Class: enrol.ClassCARejected, By: enrol.PartyCA, Message: "no", Took: 123456789,
		},
		{At: epoch.Add(2 * time.Second), Device: "plc-1", Kind: enrol.EventWarning, Message: "of the device as such"},
	}
	commit(t, s, enrol.Change{Enrolment: failed, Events: events})
	done := requested("plc-1", 2)
	commit(t, s, complete(done, device(t, s, "plc-1"), ca.issue(t, 2, "plc-1", time.Hour), epoch.Add(time.Minute)))
	running := requested("plc-1", 3)
	commit(t, s, enrol.Change{Enrolment: running})
	commit(t, s, enrol.Change{Enrolment: requested("plc-2", 4), Events: []enrol.Event{{Device: "plc-2", Message: "not ours"}}})

	s = reopen(t, s, place)
	h, err := s.History(ctx, "plc-1", 0)
	if err != nil {
		t.Fatal(err)
	}
	if len(h.Enrolments) != 3 || len(h.Certificates) != 2 || len(h.Events) != 4 {
		t.Fatalf("%d enrolments, %d certificates, %d events", len(h.Enrolments), len(h.Certificates), len(h.Events))
	}
	for i, want := range []*enrol.Enrolment{failed, done, running} {
		same(t, "enrolment", h.Enrolments[i], want)
	}
	same(t, "first event", h.Events[0].Kind, store.EventCommissioned)
	same(t, "events", h.Events[1:3], events)
	same(t, "last event", h.Events[3].Kind, enrol.EventCompleted)
	same(t, "certificate's receipt", h.Certificates[0].Receipt, failed.Receipt)
	if h.Certificates[0].Active || !h.Certificates[1].Active {
		t.Error("the active certificate is not the one of the completed enrolment")
	}
	if !h.CommissionedAt.Equal(epoch) || h.LedgerIndex != 1 || h.Device.Name != "plc-1" {
		t.Errorf("commissioned at %v, ledger index %d, %s", h.CommissionedAt, h.LedgerIndex, h.Device.Name)
	}

	limited, err := s.History(ctx, "plc-1", 2)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "the last events", limited.Events, h.Events[2:])
}

func testHistoryOfNothing(t *testing.T, place Place[Inventory]) {
	s := open(t, place)
	_, err := s.History(context.Background(), "plc-1", 0)
	wantError(t, "history", err, enrol.ErrNotFound)
	_, err = s.CertificateByHash(context.Background(), [32]byte{})
	wantError(t, "certificate", err, enrol.ErrNotFound)
}

// testHistoryAtomic: of a change that fails at its end no event stays.
func testHistoryAtomic(t *testing.T, place Place[Inventory]) {
	s := open(t, place)
	put(t, s, "plc-1")
	e := requested("plc-1", 1)
	known := enrol.Event{At: epoch, Device: "plc-1", Enrolment: e.ID, Kind: enrol.EventFailed, Class: enrol.ClassCAMismatch}
	c := enrol.Change{Enrolment: e, Events: []enrol.Event{known, {At: epoch, Device: "no such device", Enrolment: e.ID}}}
	if err := s.Commit(context.Background(), c); err == nil {
		t.Fatal("an event of an unknown device was stored")
	}
	for range 2 {
		h, err := s.History(context.Background(), "plc-1", 0)
		if err != nil || len(h.Enrolments) != 0 || len(h.Events) != 1 || h.Events[0].Kind != store.EventCommissioned {
			t.Errorf("%+v, %v", h, err)
		}
		s = reopen(t, s, place)
	}
}

// testTenures: who held which key when.
func testTenures(t *testing.T, place Place[Inventory]) {
	ctx := context.Background()
	s := open(t, place)
	put(t, s, "plc-1")
	ca := newIssuer(t, "ca")
	at := func(n int) time.Time { return epoch.Add(time.Duration(n) * time.Minute) }
	for i := range 3 {
		e := requested("plc-1", byte(i+1))
		c := complete(e, device(t, s, "plc-1"), ca.issue(t, int64(i+1), "plc-1", time.Hour), at(i))
		commit(t, s, c)
		e.UpdatedAt = at(90)
		commit(t, s, enrol.Change{Enrolment: e, Device: c.Device}) // changes nothing about it
	}
	// An operator has the device return to its first certificate, and then
	// loses it.
	h, err := s.History(ctx, "plc-1", 0)
	if err != nil {
		t.Fatal(err)
	}
	e, d := requested("plc-1", 9), device(t, s, "plc-1")
	e.State, e.UpdatedAt, d.Certificate = enrol.Failed, at(10), &h.Certificates[0].Certificate
	commit(t, s, enrol.Change{Enrolment: e, Device: &d})
	check := func(active int, want ...[]store.Tenure) {
		t.Helper()
		h, err := s.History(ctx, "plc-1", 0)
		if err != nil || len(h.Certificates) != len(want) {
			t.Fatalf("%d certificates, %v", len(h.Certificates), err)
		}
		for i, c := range h.Certificates {
			same(t, fmt.Sprintf("tenures of certificate %d", i), c.Tenures, want[i])
			if c.Active != (i == active) {
				t.Errorf("certificate %d: active is %v", i, c.Active)
			}
		}
	}
	first := []store.Tenure{{From: at(0), Until: at(1)}, {From: at(10)}}
	middle, last := []store.Tenure{{From: at(1), Until: at(2)}}, []store.Tenure{{From: at(2), Until: at(10)}}
	check(0, first, middle, last)
	e.UpdatedAt, d.Certificate = at(11), nil
	commit(t, s, enrol.Change{Enrolment: e, Device: &d})
	first[1].Until = at(11)
	check(-1, first, middle, last)
}

func testCertificateByHash(t *testing.T, place Place[Inventory]) {
	s := open(t, place)
	put(t, s, "plc-1")
	ca := newIssuer(t, "ca")
	leaf := ca.issue(t, 1, "plc-1", time.Hour)
	e := full("plc-1", leaf, []byte("issuing"), []byte("root"))
	commit(t, s, complete(e, device(t, s, "plc-1"), leaf, epoch.Add(time.Minute)))
	got, err := s.CertificateByHash(context.Background(), sha256.Sum256(leaf.Raw))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "certificate", got, store.Certificate{
		Certificate: enrol.Describe(leaf), Device: "plc-1", Enrolment: e.ID, DER: leaf.Raw, Chain: e.Chain, Receipt: e.Receipt,
		Active: true, Tenures: []store.Tenure{{From: epoch.Add(time.Minute)}},
	})
}

func testAddresses(t *testing.T, place Place[Inventory]) {
	ctx := context.Background()
	s := open(t, place)
	deliver := func(minute int, source string, rows []store.Row, manual ...string) {
		t.Helper()
		d := store.Delivery{At: epoch.Add(time.Duration(minute) * time.Minute), Source: source, Rows: rows}
		for _, a := range manual {
			d.Addresses = append(d.Addresses, store.Address{Device: "plc-1", Address: a})
		}
		if _, err := s.PutDevices(ctx, d); err != nil {
			t.Fatal(err)
		}
	}
	one, two := row("plc-1", 1, 1), row("plc-1", 1, 2)
	deliver(0, "usb 1", []store.Row{one})
	deliver(1, "usb 1", []store.Row{one})
	deliver(2, "plant.csv", nil, "manual:1")
	deliver(3, "usb 2", []store.Row{two}) // without effect, behind the manual one
	deliver(4, "plant.csv", nil, "")
	h, err := s.History(ctx, "plc-1", 0)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "addresses", h.Addresses, []store.AddressEntry{
		{Address: one.Address, Source: "usb 1", Since: epoch},
		{Address: "manual:1", Source: "plant.csv", Manual: true, Since: epoch.Add(2 * time.Minute)},
		{Address: two.Address, Source: "plant.csv", Since: epoch.Add(4 * time.Minute)},
	})
	if !slices.ContainsFunc(h.Events, func(e enrol.Event) bool { return e.Kind == store.EventCommissioned }) {
		t.Error("no event tells of the commissioning")
	}
}
