package storetest

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/store"
)

func testSerialOwner(t *testing.T, place Place[Store]) {
	ctx := context.Background()
	s := open(t, place)
	put(t, s, "plc-1", "plc-2", "plc-3")
	one, two := newIssuer(t, "one"), newIssuer(t, "two")
	leaf := one.issue(t, 0xbeef, "plc-1", time.Hour)
	owner := func(what string, issuer []byte, serial string, want enrol.ID) {
		t.Helper()
		id, err := s.SerialOwner(ctx, issuer, serial)
		if err != nil || id != want {
			t.Errorf("%s: %s, %v, want %s", what, id, err, want)
		}
	}

	// It counts from the commit that has it, in whatever state.
	first := requested("plc-1", 1)
	commit(t, s, enrol.Change{Enrolment: first})
	first.State, first.Certificate = enrol.PreVerified, leaf.Raw
	commit(t, s, enrol.Change{Enrolment: first})
	owner("the first", leaf.RawIssuer, "beef", first.ID)
	_, err := s.SerialOwner(ctx, []byte("two"), "beef")
	wantError(t, "another issuer", err, enrol.ErrNotFound)
	_, err = s.SerialOwner(ctx, leaf.RawIssuer, "BEEF")
	wantError(t, "a serial number in upper case", err, enrol.ErrNotFound)

	// The same number of another issuer is another certificate.
	second := requested("plc-2", 2)
	foreign := two.issue(t, 0xbeef, "plc-2", time.Hour)
	second.Certificate = foreign.Raw
	commit(t, s, enrol.Change{Enrolment: second})
	owner("the second", foreign.RawIssuer, "beef", second.ID)

	// A number that the issuer gives again stays the first one's, and the
	// misfit is on record all the same.
	third := requested("plc-3", 3)
	third.Certificate = one.issue(t, 0xbeef, "plc-3", time.Hour).Raw
	commit(t, s, enrol.Change{Enrolment: third})
	owner("the first, again", leaf.RawIssuer, "beef", first.ID)
	same(t, "the third", openEnrolment(t, s, "plc-3"), third)

	first.State = enrol.Failed
	commit(t, s, enrol.Change{Enrolment: first})
	s = reopen(t, s, place)
	owner("the first, failed", leaf.RawIssuer, "beef", first.ID)
}

// testEnrolmentByCertificate: whose a certificate is, that a device says to
// have, whatever has become of the enrolment.
func testEnrolmentByCertificate(t *testing.T, place Place[Store]) {
	ctx := context.Background()
	s := open(t, place)
	put(t, s, "plc-1")
	ca := newIssuer(t, "ca")
	_, err := s.EnrolmentByCertificate(ctx, [32]byte{1})
	wantError(t, "unknown", err, enrol.ErrNotFound)
	_, err = s.EnrolmentByCertificate(ctx, [32]byte{})
	wantError(t, "none", err, enrol.ErrNotFound)
	first, second := requested("plc-1", 1), requested("plc-1", 2)
	leaves := []*x509.Certificate{ca.issue(t, 1, "plc-1", time.Hour), ca.issue(t, 2, "plc-1", time.Hour)}
	first.Rollbacks = 2
	commit(t, s, complete(first, device(t, s, "plc-1"), leaves[0], epoch))
	second.State, second.Certificate = enrol.Issued, leaves[1].Raw
	commit(t, s, enrol.Change{Enrolment: second})
	for range 2 {
		for i, want := range []*enrol.Enrolment{first, second} {
			got, err := s.EnrolmentByCertificate(ctx, sha256.Sum256(leaves[i].Raw))
			if err != nil {
				t.Fatal(err)
			}
			same(t, "enrolment", got, want)
		}
		s = reopen(t, s, place)
	}
}

// testSameCertificate: a CA that answers two requests for one key with one
// certificate must not make the second enrolment impossible to store, since
// its failure is what has to be stored.
func testSameCertificate(t *testing.T, place Place[Store]) {
	s := open(t, place)
	put(t, s, "plc-1")
	leaf := newIssuer(t, "ca").issue(t, 3, "plc-1", time.Hour)
	first, second := requested("plc-1", 1), requested("plc-1", 2)
	commit(t, s, complete(first, device(t, s, "plc-1"), leaf, epoch.Add(time.Minute)))
	second.State, second.Certificate = enrol.Issued, leaf.Raw
	commit(t, s, enrol.Change{Enrolment: second})
	same(t, "open", openEnrolment(t, s, "plc-1"), second)
	id, err := s.SerialOwner(context.Background(), leaf.RawIssuer, serialOf(leaf))
	if err != nil || id != first.ID {
		t.Errorf("owner %s, %v", id, err)
	}
}

// testAliasing holds that only a commit changes what is stored.
func testAliasing(t *testing.T, place Place[Store]) {
	s := open(t, place)
	put(t, s, "plc-1")
	ca := newIssuer(t, "ca")
	e := full("plc-1", ca.issue(t, 77, "plc-1", time.Hour), []byte("chain"))
	d := device(t, s, "plc-1")
	commit(t, s, enrol.Change{Enrolment: e, Device: &d})
	e.SANs[0].Value, e.Subject[0].Value, e.KeyUsage[0] = "spoiled", "spoiled", "spoiled"
	e.Chain[0][0], e.Certificate[0], e.Receipt.Statement[0] = 0xff, 0xff, 0xff
	d.Labels["line"], d.Names[0].Value = "spoiled", "spoiled"
	for range 2 {
		got := openEnrolment(t, s, "plc-1")
		if got.SANs[0].Value != "plc.example" || got.Subject[0].Value == "spoiled" || got.KeyUsage[0] == "spoiled" ||
			got.Chain[0][0] != 'c' || got.Certificate[0] != 0x30 || got.Receipt.Statement[0] != 's' {
			t.Errorf("the stored enrolment changed: %+v", got)
		}
		row := device(t, s, "plc-1")
		if row.Labels["line"] != "1" || row.Names[0].Value != "plc-1" {
			t.Errorf("the stored row changed: %+v", row)
		}
		// What was read is a copy, too.
		got.SANs[0].Value, got.Chain[0][0], row.Labels["line"], row.Names[0].Value = "spoiled", 0xff, "spoiled", "spoiled"
	}
}

func testCancelledContext(t *testing.T, place Place[Store]) {
	s := open(t, place)
	put(t, s, "plc-1")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	wantError(t, "commit", s.Commit(ctx, enrol.Change{Enrolment: requested("plc-1", 1)}), context.Canceled)
	_, err := s.PutDevices(ctx, store.Delivery{Rows: []store.Row{row("plc-2", 1, 1)}})
	wantError(t, "put devices", err, context.Canceled)
	if _, err := s.OpenEnrolment(context.Background(), "plc-1"); err == nil {
		t.Error("the commit took effect")
	}
}

func testClosed(t *testing.T, place Place[Store]) {
	s := place(t)
	put(t, s, "plc-1")
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	wantError(t, "commit", s.Commit(context.Background(), enrol.Change{Enrolment: requested("plc-1", 1)}), store.ErrClosed)
}

func testCommission(t *testing.T, place Place[Store]) {
	ctx := context.Background()
	s := open(t, place)
	deliver := func(want store.Counts, rows ...store.Row) {
		t.Helper()
		counts, err := s.PutDevices(ctx, store.Delivery{At: epoch, Source: "usb", Rows: rows})
		if err != nil || counts != want {
			t.Errorf("%+v, %v, want %+v", counts, err, want)
		}
	}
	deliver(store.Counts{})
	deliver(store.Counts{Added: 2}, row("plc-1", 1, 1), row("plc-2", 1, 2))
	deliver(store.Counts{Unchanged: 2}, row("plc-1", 1, 1), row("plc-2", 1, 2))
	deliver(store.Counts{Added: 1, Unchanged: 1, Updated: 1}, row("plc-1", 2, 4), row("plc-2", 1, 2), row("plc-3", 1, 3))
	deliver(store.Counts{Skipped: 1}, row("plc-1", 1, 1))
	deliver(store.Counts{Added: 1}, row("plc-4", 1, 5), row("plc-4", 2, 6))

	want := row("plc-1", 2, 4)
	same(t, "device", device(t, s, "plc-1"), fleet.Device{
		Name: "plc-1", Identity: want.Identity, Address: want.Address, Labels: want.Labels, Names: want.Names,
	})

	// What an enrolment decided stays.
	d := device(t, s, "plc-1")
	d.LastError, d.Attempts, d.Quarantined = "failed", 2, true
	commit(t, s, enrol.Change{Enrolment: requested("plc-1", 1), Device: &d})
	deliver(store.Counts{Updated: 1}, row("plc-1", 3, 7))
	got := device(t, s, "plc-1")
	if got.LastError != "failed" || got.Attempts != 2 || !got.Quarantined || got.Identity.Generation != 3 {
		t.Errorf("after a later identity: %+v", got)
	}
	openEnrolment(t, s, "plc-1")
}

// testCommissionOrder: two sticks may arrive in any order.
func testCommissionOrder(t *testing.T, place Place[Store]) {
	ctx := context.Background()
	s := open(t, place)
	later := row("plc-1", 2, 9)
	relabelled := later
	relabelled.LedgerIndex, relabelled.Labels, relabelled.Address, relabelled.Names = 12, map[string]string{"line": "new"}, "new:1", nil
	reissued := later
	reissued.LedgerIndex = 15
	for _, step := range []struct {
		row    store.Row
		counts store.Counts
		want   store.Row
	}{
		{later, store.Counts{Added: 1}, later},
		{row("plc-1", 1, 3), store.Counts{Skipped: 1}, later},
		{relabelled, store.Counts{Updated: 1}, relabelled},
		{later, store.Counts{Unchanged: 1}, relabelled},
		{reissued, store.Counts{Updated: 1}, reissued},
		{relabelled, store.Counts{Unchanged: 1}, reissued},
	} {
		counts, err := s.PutDevices(ctx, store.Delivery{At: epoch, Rows: []store.Row{step.row}})
		if err != nil || counts != step.counts {
			t.Errorf("ledger index %d: %+v, %v, want %+v", step.row.LedgerIndex, counts, err, step.counts)
		}
		d := device(t, s, "plc-1")
		same(t, "device", store.Row{Identity: d.Identity, Address: d.Address, Labels: d.Labels, Names: d.Names, LedgerIndex: step.want.LedgerIndex}, step.want)
	}
}

func testCommissionAtomic(t *testing.T, place Place[Store]) {
	ctx := context.Background()
	s := open(t, place)
	put(t, s, "plc-1")
	clm, unlabelled, far := row("plc-3", 1, 3), row("plc-3", 1, 3), row("plc-3", 1, 1<<63)
	clm.Identity.Role = "clm"
	unlabelled.Labels = map[string]string{"a=b": "c"}
	for name, bad := range map[string]store.Row{"clm": clm, "labels": unlabelled, "ledger": far, "identity": {}} {
		_, err := s.PutDevices(ctx, store.Delivery{At: epoch, Rows: []store.Row{row("plc-1", 2, 8), row("plc-2", 1, 2), bad}})
		wantError(t, name, err, store.ErrInvalid)
	}
	_, err := s.PutDevices(ctx, store.Delivery{
		At: epoch, Rows: []store.Row{row("plc-1", 2, 8), row("plc-2", 1, 2)}, Addresses: []store.Address{{Device: "plc-9", Address: "a:1"}},
	})
	wantError(t, "an address of nobody", err, enrol.ErrNotFound)
	if got := device(t, s, "plc-1"); got.Identity.Generation != 1 {
		t.Errorf("plc-1 is %s", got.Identity)
	}
	_, err = s.Device(ctx, "plc-2")
	wantError(t, "plc-2", err, enrol.ErrNotFound)
}

func testManualAddress(t *testing.T, place Place[Store]) {
	ctx := context.Background()
	s := open(t, place)
	put(t, s, "plc-1", "plc-2")
	fromManifest := device(t, s, "plc-1").Address
	deliver := func(want store.Counts, address string, rows ...store.Row) {
		t.Helper()
		counts, err := s.PutDevices(ctx, store.Delivery{At: epoch, Rows: rows, Addresses: []store.Address{{Device: "plc-1", Address: address}}})
		if err != nil || counts != want {
			t.Errorf("%+v, %v, want %+v", counts, err, want)
		}
	}
	deliver(store.Counts{Unchanged: 1}, "")
	deliver(store.Counts{Updated: 1}, "manual:1")
	same(t, "address", device(t, s, "plc-1").Address, "manual:1")
	deliver(store.Counts{Unchanged: 1}, "manual:1")
	deliver(store.Counts{Updated: 1}, "manual:2", row("plc-1", 2, 20))
	s = reopen(t, s, place)
	same(t, "address", device(t, s, "plc-1").Address, "manual:2")
	deliver(store.Counts{Updated: 1}, "")
	same(t, "address", device(t, s, "plc-1").Address, row("plc-1", 2, 20).Address)
	if fromManifest == row("plc-1", 2, 20).Address {
		t.Error("the fixture's addresses do not differ")
	}
	counts, err := s.PutDevices(ctx, store.Delivery{Rows: []store.Row{row("plc-3", 1, 30)}, Addresses: []store.Address{{Device: "plc-3", Address: "manual:3"}}})
	if err != nil || counts != (store.Counts{Added: 1}) {
		t.Errorf("a new device with a manual address: %+v, %v", counts, err)
	}
	same(t, "address", device(t, s, "plc-3").Address, "manual:3")
}
