package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/store"
)

// troubled makes a device with a certificate, an asset, a bundle and an open
// enrolment that waits, quarantined and paused.
func troubled(t *testing.T, s Inventory, name string) (open *enrol.Enrolment) {
	t.Helper()
	ctx := context.Background()
	put(t, s, name)
	ca := newIssuer(t, "ca")
	commit(t, s, complete(requested(name, 1), device(t, s, name), ca.issue(t, 1, name, time.Hour), epoch))
	if _, err := s.PutDevices(ctx, store.Delivery{At: epoch, Assets: []store.Asset{{Device: name, Asset: "PRESS 7"}}}); err != nil {
		t.Fatal(err)
	}
	bundle := enrol.NewDelivery(name, enrol.DeliverBundle, enrol.BundleVersion(deviceIdentity(name, 2)), []byte("sealed"), epoch)
	if n, err := s.QueueDeliveries(ctx, []enrol.Delivery{bundle}); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	d := device(t, s, name)
	open = requested(name, 2)
	d.Quarantined, d.Attempts, d.NextAttempt, d.LastError = true, 3, epoch.Add(time.Hour), "gone"
	commit(t, s, enrol.Change{Enrolment: open, Device: &d})
	if err := s.SetPaused(ctx, action(name, ""), true); err != nil {
		t.Fatal(err)
	}
	return open
}

func testDecommission(t *testing.T, place Place[Inventory]) {
	ctx := context.Background()
	s := open(t, place)
	running := troubled(t, s, "plc-1")
	before := device(t, s, "plc-1")
	retire := action("plc-1", "scrapped")
	for range 2 {
		if err := s.Decommission(ctx, retire); err != nil {
			t.Fatal(err)
		}
	}
	s = reopen(t, s, place)
	sameDevice(t, "device", device(t, s, "plc-1"), fleet.Device{
		Name: "plc-1", Identity: before.Identity, PublicKey: before.PublicKey, Address: before.Address, Labels: before.Labels, Names: before.Names,
		Certificate: before.Certificate, EnrolledAt: before.EnrolledAt, Decommissioned: retire.At,
	})
	h, err := s.History(ctx, "plc-1", 0)
	if err != nil {
		t.Fatal(err)
	}
	last := h.Enrolments[len(h.Enrolments)-1]
	if last.ID != running.ID || last.State != enrol.Failed || last.FailedBy != enrol.PartyCLM || last.LastError == "" || !last.UpdatedAt.Equal(retire.At) {
		t.Errorf("its open enrolment: %+v", last)
	}
	events := lastEvents(t, s, "plc-1")
	same(t, "the last events", events[len(events)-3:], []string{
		"failed: the device was decommissioned", "bound: no asset from decommissioning", "decommissioned: scrapped",
	})
	if len(h.Certificates) != 1 || !h.Certificates[0].Active || len(h.Assets) != 2 {
		t.Errorf("history: %+v, %+v", h.Certificates, h.Assets)
	}
	if waits, err := s.OutstandingDeliveries(ctx, "plc-1"); err != nil || len(waits) != 0 {
		t.Errorf("waiting: %v, %v", waits, err)
	}
	wantError(t, "unknown", s.Decommission(ctx, action("plc-9", "")), enrol.ErrNotFound)
	wantError(t, "at no time", s.Decommission(ctx, store.Action{Device: "plc-1"}), store.ErrInvalid)
}

// testDecommissionStops: what was under way, or comes later, changes nothing.
func testDecommissionStops(t *testing.T, place Place[Inventory]) {
	ctx := context.Background()
	s := open(t, place)
	running := troubled(t, s, "plc-1")
	release, err := s.Lease(ctx, "plc-1")
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if err := s.Decommission(ctx, action("plc-1", "scrapped")); err != nil {
		t.Fatalf("a device that somebody works on: %v", err)
	}
	want := device(t, s, "plc-1")
	d := want
	d.LastError, d.NextAttempt = "no answer", epoch.Add(time.Minute)
	wantError(t, "what goes on", s.Commit(ctx, enrol.Change{Enrolment: running, Device: &d}), enrol.ErrDecommissioned)
	wantError(t, "what begins", s.Commit(ctx, enrol.Change{Enrolment: requested("plc-1", 3)}), enrol.ErrDecommissioned)
	bundle := enrol.NewDelivery("plc-1", enrol.DeliverBundle, enrol.BundleVersion(deviceIdentity("plc-1", 3)), []byte("sealed"), epoch)
	if n, err := s.QueueDeliveries(ctx, []enrol.Delivery{bundle}); err != nil || n != 0 {
		t.Errorf("queued %d, %v", n, err)
	}
	_, err = s.PutDevices(ctx, store.Delivery{At: epoch, Assets: []store.Asset{{Device: "plc-1", Asset: "PRESS 8"}}})
	wantError(t, "an asset", err, store.ErrInvalid)
	sameDevice(t, "device", device(t, s, "plc-1"), want)

	put(t, s, "plc-1") // as the manifest had it: it goes on where it was decommissioned
	sameDevice(t, "listed again by its manifest", device(t, s, "plc-1"), want)
	if _, err := s.PutDevices(ctx, store.Delivery{At: epoch, Rows: []store.Row{row("plc-1", 1, 1)}, Reinstate: true}); err != nil {
		t.Fatal(err)
	}
	wantError(t, "what went on before", s.Commit(ctx, enrol.Change{Enrolment: running, Device: &d}), enrol.ErrConflict)
}

// testDecommissionLists: who does not ask for them does not see them.
func testDecommissionLists(t *testing.T, place Place[Inventory]) {
	ctx := context.Background()
	s := open(t, place)
	ca := newIssuer(t, "ca")
	all := []string{"a", "b", "c"}
	put(t, s, all...)
	for i, name := range all {
		commit(t, s, complete(requested(name, byte(i+1)), device(t, s, name), ca.issue(t, int64(i+1), name, time.Hour), epoch))
	}
	if err := s.Decommission(ctx, action("b", "")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		filter store.Filter
		want   []string
	}{
		{store.Filter{}, []string{"a", "c"}},
		{store.Filter{Labels: map[string]string{"site": "bilbao"}}, []string{"a", "c"}},
		{store.Filter{Decommissioned: true}, []string{"a", "b", "c"}},
		{store.Filter{Names: []string{"b", "c"}, Decommissioned: true}, []string{"b", "c"}},
	} {
		devices, err := store.Collect(s.ListDevices(ctx, c.filter))
		if err != nil {
			t.Error(err)
		}
		same(t, "listed", names(devices), c.want)
		if n, err := s.CountDevices(ctx, c.filter); err != nil || n != len(c.want) {
			t.Errorf("%+v: counted %d, %v", c.filter, n, err)
		}
	}
	_, err := store.Collect(s.ListDevices(ctx, store.Filter{Names: []string{"b"}}))
	wantError(t, "by name", err, enrol.ErrDecommissioned)
	same(t, "due", due(t, s, store.Filter{}, epoch.Add(2*time.Hour)), []string{"a", "c"})
	if planned, err := s.NextDue(ctx, epoch); err != nil || planned.IsZero() {
		t.Error(planned, err)
	}
	for _, name := range []string{"a", "c"} {
		if err := s.Decommission(ctx, action(name, "")); err != nil {
			t.Fatal(err)
		}
	}
	if next, err := s.NextDue(ctx, epoch); err != nil || !next.IsZero() {
		t.Errorf("somebody is due at %v, %v", next, err)
	}
}

// testReinstate: a manifest that has more to say of a device, or somebody who
// asks for it, brings it back.
func testReinstate(t *testing.T, place func(t testing.TB) Place[Inventory]) {
	for name, c := range map[string]struct {
		row       store.Row
		reinstate bool
		want      store.Counts
		back      bool
	}{
		"the same row":            {row("plc-1", 1, 1), false, store.Counts{Unchanged: 1, Decommissioned: 1}, false},
		"the same row, asked for": {row("plc-1", 1, 1), true, store.Counts{Updated: 1, Reinstated: 1}, true},
		"a later issue":           {row("plc-1", 1, 2), false, store.Counts{Updated: 1, Reinstated: 1}, true},
		"a later generation":      {sealed(row("plc-1", 2, 2)), false, store.Counts{Updated: 1, Reinstated: 1}, true},
		"of the withdrawn bundle": {row("plc-1", 2, 1), false, store.Counts{Unchanged: 1, Decommissioned: 1}, false},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := context.Background()
			s := open(t, place(t))
			troubled(t, s, "plc-1")
			if err := s.Decommission(ctx, action("plc-1", "")); err != nil {
				t.Fatal(err)
			}
			out := device(t, s, "plc-1")
			events := len(lastEvents(t, s, "plc-1"))
			got, err := s.PutDevices(ctx, store.Delivery{At: epoch.Add(2 * time.Hour), Source: "later.json", Rows: []store.Row{c.row}, Reinstate: c.reinstate})
			if err != nil {
				t.Fatal(err)
			}
			same(t, "counts", got, c.want)
			d := device(t, s, "plc-1")
			n, err := s.CountDevices(ctx, store.Filter{})
			if err != nil {
				t.Fatal(err)
			}
			h, err := s.History(ctx, "plc-1", 1)
			if err != nil {
				t.Fatal(err)
			}
			if !c.back {
				sameDevice(t, "device", d, out)
				same(t, "events", len(lastEvents(t, s, "plc-1")), events)
				same(t, "count", n, 0)
				return
			}
			want := out
			want.Decommissioned, want.Identity = time.Time{}, c.row.Identity
			if want.Identity != out.Identity {
				want.PublicKey = nil
			}
			want.Address, want.Labels, want.Names = c.row.Address, c.row.Labels, c.row.Names
			sameDevice(t, "device", d, want)
			same(t, "the last event", h.Events[0].Kind, store.EventCommissioned)
			same(t, "count", n, 1)
			same(t, "due", due(t, s, store.Filter{}, epoch.Add(2*time.Hour)), []string{"plc-1"})
			if waits, err := s.Outstanding(ctx); err != nil || len(waits) != 0 {
				t.Errorf("queued for an identity that was in the scrap: %v, %v", waits, err)
			}
		})
	}
}

// testDecommissionOverview: nor does who looks at the whole fleet.
func testDecommissionOverview(t *testing.T, place Place[Overview]) {
	ctx := context.Background()
	s := open(t, place)
	ca := newIssuer(t, "ca")
	put(t, s, "a", "b")
	for i, name := range []string{"a", "b"} {
		commit(t, s, complete(requested(name, byte(i+1)), device(t, s, name), ca.issue(t, int64(i+1), name, time.Hour), epoch))
	}
	if err := s.Decommission(ctx, action("a", "")); err != nil {
		t.Fatal(err)
	}
	rows, err := s.Rows(ctx, "", 0)
	if err != nil || len(rows) != 1 || rows[0].Name != "b" {
		t.Errorf("rows: %+v, %v", rows, err)
	}
	if rows, err = s.RowsOf(ctx, []string{"a", "b"}); err != nil || len(rows) != 1 || rows[0].Name != "b" {
		t.Errorf("rows by name: %+v, %v", rows, err)
	}
	troubles, more, err := s.Troubles(ctx, epoch.Add(2*time.Hour), 10)
	if err != nil || more != 0 || len(troubles) != 1 || troubles[0].Device != "b" {
		t.Errorf("troubles: %+v, %d more, %v", troubles, more, err)
	}
}

func sealed(r store.Row) store.Row {
	r.Sealed = []byte("sealed")
	return r
}

// sameDevice compares what a certificate says, not where it lies.
func sameDevice(t testing.TB, what string, got, want fleet.Device) {
	t.Helper()
	if got.Certificate != nil && want.Certificate != nil {
		same(t, what+"'s certificate", *got.Certificate, *want.Certificate)
		got.Certificate = want.Certificate
	}
	same(t, what, got, want)
}
