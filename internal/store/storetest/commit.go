package storetest

import (
	"context"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/store"
)

func testNotFound(t *testing.T, place Place[Store]) {
	ctx := context.Background()
	s := open(t, place)
	put(t, s, "plc-1")
	_, err := s.Device(ctx, "plc-2")
	wantError(t, "an unknown device", err, enrol.ErrNotFound)
	_, err = s.OpenEnrolment(ctx, "plc-1")
	wantError(t, "no open enrolment", err, enrol.ErrNotFound)
	_, err = s.OpenEnrolment(ctx, "plc-2")
	wantError(t, "an unknown device's enrolment", err, enrol.ErrNotFound)
	_, err = s.SerialOwner(ctx, []byte("issuer"), "01")
	wantError(t, "an unknown serial", err, enrol.ErrNotFound)
	err = s.Commit(ctx, enrol.Change{Enrolment: requested("plc-2", 1)})
	wantError(t, "a commit for an unknown device", err, enrol.ErrNotFound)
}

// testRoundTrip holds that every field of an enrolment survives; a field that
// is added to it fails here until the fixture, and so the store, knows it.
func testRoundTrip(t *testing.T, place Place[Store]) {
	s := open(t, place)
	put(t, s, "plc-1")
	ca := newIssuer(t, "ca")
	e := full("plc-1", ca.issue(t, 77, "plc-1", time.Hour), ca.issue(t, 1, "issuing", time.Hour).Raw, ca.issue(t, 2, "root", time.Hour).Raw)
	commit(t, s, enrol.Change{Enrolment: e})
	for v, i := reflect.ValueOf(*e), 0; i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("the fixture has no %s", v.Type().Field(i).Name)
		}
	}
	if e.Revision != 1 {
		t.Errorf("revision %d after the first commit", e.Revision)
	}
	same(t, "read", openEnrolment(t, s, "plc-1"), e)
	s = reopen(t, s, place)
	same(t, "after reopening", openEnrolment(t, s, "plc-1"), e)
}

func testZeroRoundTrip(t *testing.T, place Place[Store]) {
	s := open(t, place)
	put(t, s, "plc-1")
	e := &enrol.Enrolment{ID: enrol.ID{1}, Device: "plc-1", State: enrol.Requested}
	commit(t, s, enrol.Change{Enrolment: e, Events: []enrol.Event{{Device: "plc-1", Enrolment: e.ID}}})
	got := openEnrolment(t, s, "plc-1")
	same(t, "read", got, e)
	if !got.NextTry.IsZero() || !got.SubmittedAt.IsZero() {
		t.Errorf("the zero time became %v", got.NextTry)
	}

	// What was there can go away again.
	ca := newIssuer(t, "ca")
	filled := full("plc-1", ca.issue(t, 77, "plc-1", time.Hour), []byte("chain"))
	filled.ID, filled.Revision = e.ID, e.Revision
	commit(t, s, enrol.Change{Enrolment: filled})
	e.Revision = filled.Revision
	commit(t, s, enrol.Change{Enrolment: e})
	same(t, "emptied", openEnrolment(t, s, "plc-1"), e)
}

func testOddStrings(t *testing.T, place Place[Store]) {
	id := byte(0)
	for name, odd := range map[string]string{
		"empty": "", "nul": "a\x00b", "not UTF-8": "a\xff\xfeb", "quotes": `'";--`, "newlines": "a\r\nb", "wide": "𝄞 ü \u202e x",
		"huge": strings.Repeat("0123456789abcdef", 1<<16),
	} {
		id++
		t.Run(name, func(t *testing.T) {
			s := open(t, place)
			put(t, s, "plc-1")
			d := device(t, s, "plc-1")
			d.LastError = odd
			e := requested("plc-1", id)
			e.LastError, e.TransactionID, e.CA = odd, odd, odd
			commit(t, s, enrol.Change{Enrolment: e, Device: &d, Events: []enrol.Event{{Device: "plc-1", Message: odd, Class: enrol.ClassCAMismatch, Enrolment: e.ID}}})
			s = reopen(t, s, place)
			if got := openEnrolment(t, s, "plc-1"); got.LastError != odd || got.TransactionID != odd || got.CA != odd {
				t.Errorf("enrolment: %.80q", got.LastError)
			}
			if got := device(t, s, "plc-1"); got.LastError != odd {
				t.Errorf("device: %.80q", got.LastError)
			}
			e.State = enrol.Failed
			commit(t, s, enrol.Change{Enrolment: e})
		})
	}
}

// testOddTimes holds the precision, and the reach to the year 9999 that RFC
// 5280 section 4.1.2.5 wants.
func testOddTimes(t *testing.T, place Place[Store]) {
	zone := time.FixedZone("far", 14*3600)
	id := byte(0)
	for name, c := range map[string]struct{ in, out time.Time }{
		"nanoseconds": {epoch.Add(999), epoch},
		"zone":        {epoch.In(zone), epoch},
		"1969":        {time.Unix(-1, 1), time.Unix(-1, 0)},
		"far behind":  {time.Date(1, 1, 1, 0, 0, 1, 0, time.UTC), time.Date(1, 1, 1, 0, 0, 1, 0, time.UTC)},
		"far ahead":   {time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC)},
		"after 2262":  {time.Unix(1<<34, 0), time.Unix(1<<34, 0)},
	} {
		id++
		t.Run(name, func(t *testing.T) {
			s := open(t, place)
			put(t, s, "plc-1")
			d := device(t, s, "plc-1")
			d.NextAttempt = c.in
			e := requested("plc-1", id)
			e.NextTry = c.in
			commit(t, s, enrol.Change{Enrolment: e, Device: &d})
			same(t, "enrolment", openEnrolment(t, s, "plc-1").NextTry, c.out.UTC())
			same(t, "device", device(t, s, "plc-1").NextAttempt, c.out.UTC())
			e.State = enrol.Failed
			commit(t, s, enrol.Change{Enrolment: e})
		})
	}
}

func testRevisions(t *testing.T, place Place[Store]) {
	ctx := context.Background()
	s := open(t, place)
	put(t, s, "plc-1", "plc-2")
	e := requested("plc-1", 1)
	e.Revision = 4
	wantError(t, "a first commit of a later revision", s.Commit(ctx, enrol.Change{Enrolment: e}), enrol.ErrConflict)
	e.Revision = 0
	commit(t, s, enrol.Change{Enrolment: e})
	stale := *e
	e.State = enrol.Submitted
	commit(t, s, enrol.Change{Enrolment: e})
	for _, revision := range []int64{0, 1, 3, -1} {
		other := stale
		other.Revision, other.State = revision, enrol.Failed
		wantError(t, "another revision", s.Commit(ctx, enrol.Change{Enrolment: &other}), enrol.ErrConflict)
		if other.Revision != revision {
			t.Errorf("a refused commit raised the revision from %d to %d", revision, other.Revision)
		}
	}
	moved := *e
	moved.Device = "plc-2"
	wantError(t, "an enrolment moved to another device", s.Commit(ctx, enrol.Change{Enrolment: &moved}), enrol.ErrConflict)
	same(t, "stored", openEnrolment(t, s, "plc-1"), e)
	if e.Revision != 2 {
		t.Errorf("revision %d after two commits", e.Revision)
	}
}

func testOneOpen(t *testing.T, place Place[Store]) {
	ctx := context.Background()
	s := open(t, place)
	put(t, s, "plc-1")
	first, second := requested("plc-1", 1), requested("plc-1", 2)
	commit(t, s, enrol.Change{Enrolment: first})
	wantError(t, "a second open enrolment", s.Commit(ctx, enrol.Change{Enrolment: second}), enrol.ErrConflict)
	same(t, "open", openEnrolment(t, s, "plc-1"), first)
	for _, final := range []enrol.State{enrol.Failed, enrol.Completed} {
		first.State = final
		commit(t, s, enrol.Change{Enrolment: first})
		if _, err := s.OpenEnrolment(ctx, "plc-1"); err == nil {
			t.Errorf("an enrolment is open that is %s", final)
		}
	}
	commit(t, s, enrol.Change{Enrolment: second})
	first.State = enrol.Submitted
	wantError(t, "a final enrolment opened again beside another", s.Commit(ctx, enrol.Change{Enrolment: first}), enrol.ErrConflict)
	same(t, "open", openEnrolment(t, s, "plc-1"), second)
}

func testOneOpenEach(t *testing.T, place Place[Store]) {
	s := open(t, place)
	put(t, s, "plc-1", "plc-2")
	first, second := requested("plc-1", 1), requested("plc-2", 2)
	commit(t, s, enrol.Change{Enrolment: first})
	commit(t, s, enrol.Change{Enrolment: second})
	same(t, "first", openEnrolment(t, s, "plc-1"), first)
	same(t, "second", openEnrolment(t, s, "plc-2"), second)
}

// testAtomic holds that of a change that fails at its end nothing stays.
func testAtomic(t *testing.T, place Place[Store]) {
	ctx := context.Background()
	s := open(t, place)
	put(t, s, "plc-1")
	leaf := newIssuer(t, "ca").issue(t, 5, "plc-1", time.Hour)
	before := device(t, s, "plc-1")
	e := requested("plc-1", 1)
	c := complete(e, before, leaf, epoch.Add(time.Minute))
	known := enrol.Event{At: epoch, Device: "plc-1", Enrolment: e.ID, Class: enrol.ClassCAMismatch, Kind: enrol.EventFailed}
	c.Events = []enrol.Event{known, {At: epoch, Device: "no such device", Enrolment: e.ID}}
	if err := s.Commit(ctx, c); err == nil {
		t.Fatal("an event of an unknown device was stored")
	}
	check := func(s Store) {
		t.Helper()
		same(t, "device", device(t, s, "plc-1"), before)
		_, err := s.SerialOwner(ctx, leaf.RawIssuer, serialOf(leaf))
		wantError(t, "the certificate", err, enrol.ErrNotFound)
		if e.Revision != 0 {
			t.Errorf("revision %d", e.Revision)
		}
	}
	check(s)
	s = reopen(t, s, place)
	check(s)
	c.Events = c.Events[:1]
	commit(t, s, c)
}

func testInvalid(t *testing.T, place Place[Store]) {
	ctx := context.Background()
	s := open(t, place)
	put(t, s, "plc-1", "plc-2")
	ca := newIssuer(t, "ca")
	unknown := enrol.Describe(ca.issue(t, 9, "plc-1", time.Hour))
	for name, spoil := range map[string]func(*enrol.Change){
		"another device's row":         func(c *enrol.Change) { c.Device.Name = "plc-2" },
		"another device's identity":    func(c *enrol.Change) { c.Device.Identity = deviceIdentity("plc-2", 2) },
		"another role":                 func(c *enrol.Change) { c.Device.Identity.Role, c.Device.Identity.Generation = "clm", 2 },
		"a certificate off the record": func(c *enrol.Change) { c.Device.Certificate = &unknown },
		"no certificate at all":        func(c *enrol.Change) { c.Enrolment.Certificate = []byte("junk") },
		"an event of something else":   func(c *enrol.Change) { c.Events = []enrol.Event{{Device: "plc-1", Enrolment: enrol.ID{9, 9}}} },
	} {
		d, e := device(t, s, "plc-1"), requested("plc-1", 1)
		c := enrol.Change{Enrolment: e, Device: &d}
		spoil(&c)
		wantError(t, name, s.Commit(ctx, c), store.ErrInvalid)
	}
	if _, err := s.OpenEnrolment(ctx, "plc-1"); err == nil {
		t.Error("something of it was stored")
	}
}

// testDeviceColumns holds which columns of a row an enrolment decides.
func testDeviceColumns(t *testing.T, place Place[Store]) {
	s := open(t, place)
	put(t, s, "plc-1", "plc-2")
	other := device(t, s, "plc-2")
	before := device(t, s, "plc-1")
	leaf := newIssuer(t, "ca").issue(t, 255, "plc-1", time.Hour)
	described := enrol.Describe(leaf)

	e := requested("plc-1", 1)
	e.Certificate = leaf.Raw
	changed := fleet.Device{
		Name: "plc-1", Identity: deviceIdentity("plc-1", 3), PublicKey: []byte("elsewhere"), Next: deviceIdentity("plc-1", 4), Address: "elsewhere:1", Asset: "elsewhere", Labels: map[string]string{"line": "99"},
		Names: []fleet.Name{{Kind: fleet.KindCN, Value: "other"}}, Paused: true, Quarantined: true, Decommissioned: epoch, Certificate: &described,
		EnrolledAt: epoch.Add(1 * time.Minute), RenewAt: epoch.Add(2 * time.Minute), Attempts: 4,
		NextAttempt: epoch.Add(3 * time.Minute), LastError: "the last error",
	}
	for v, i := reflect.ValueOf(changed), 0; i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("the fixture has no %s", v.Type().Field(i).Name)
		}
	}
	commit(t, s, enrol.Change{Enrolment: e, Device: &changed})

	want := changed
	want.PublicKey = nil
	want.Asset, want.Address, want.Labels, want.Names = before.Asset, before.Address, before.Labels, before.Names
	want.Paused, want.Decommissioned, want.Next = before.Paused, before.Decommissioned, before.Next
	for range 2 {
		got := device(t, s, "plc-1")
		same(t, "certificate", *got.Certificate, *want.Certificate)
		got.Certificate, want.Certificate = nil, nil
		same(t, "device", got, want)
		same(t, "other device", device(t, s, "plc-2"), other)
		want.Certificate = &described
		s = reopen(t, s, place)
	}

	// All but the identity and the quarantine can go back.
	commit(t, s, enrol.Change{Enrolment: e, Device: &before})
	want = before
	want.Identity, want.Quarantined = changed.Identity, true
	same(t, "device, emptied", device(t, s, "plc-1"), want)
}

func testDeviceNil(t *testing.T, place Place[Store]) {
	s := open(t, place)
	put(t, s, "plc-1")
	before := device(t, s, "plc-1")
	commit(t, s, enrol.Change{Enrolment: requested("plc-1", 1)})
	same(t, "device", device(t, s, "plc-1"), before)
}

func testIdentityRises(t *testing.T, place Place[Store]) {
	s := open(t, place)
	put(t, s, "plc-1")
	e := requested("plc-1", 1)
	for _, step := range []struct{ epoch, generation, wantEpoch, wantGeneration uint32 }{
		{1, 2, 1, 2}, {1, 1, 1, 2}, {2, 1, 2, 1}, {1, 9, 2, 1}, {2, 1, 2, 1},
	} {
		d := device(t, s, "plc-1")
		d.Identity.Epoch, d.Identity.Generation = step.epoch, step.generation
		commit(t, s, enrol.Change{Enrolment: e, Device: &d})
		if got := device(t, s, "plc-1").Identity; got.Epoch != step.wantEpoch || got.Generation != step.wantGeneration {
			t.Errorf("after e%d.g%d: %s", step.epoch, step.generation, got)
		}
	}
}

func testQuarantineStays(t *testing.T, place Place[Store]) {
	s := open(t, place)
	put(t, s, "plc-1")
	e, d := requested("plc-1", 1), device(t, s, "plc-1")
	d.Quarantined = true
	commit(t, s, enrol.Change{Enrolment: e, Device: &d})
	d.Quarantined = false
	commit(t, s, enrol.Change{Enrolment: e, Device: &d})
	if !device(t, s, "plc-1").Quarantined {
		t.Error("an enrolment ended a quarantine")
	}
}
