package storetest

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/store"
)

// keyed is a manifest's row with the public key of its identity.
func keyed(name string, generation uint32, ledgerIndex uint64) store.Row {
	r := row(name, generation, ledgerIndex)
	q := r.Identity.PublicKey()
	r.PublicKey = q[:]
	return r
}

// testPublicKeys: what is on record is of the identity that is accepted, or
// nothing is.
func testPublicKeys(t *testing.T, place Place[Inventory]) {
	ctx := context.Background()
	s := open(t, place)
	deliver := func(d store.Delivery) {
		t.Helper()
		d.At = epoch
		if _, err := s.PutDevices(ctx, d); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string, generation uint32, known bool) {
		t.Helper()
		d := device(t, s, "plc-1")
		q := d.Identity.PublicKey()
		if d.Identity.Generation != generation || known != (d.PublicKey != nil) || known && !bytes.Equal(d.PublicKey, q[:]) {
			t.Errorf("%s: %s with %x", when, d.Identity, d.PublicKey)
		}
	}
	put(t, s, "plc-1")
	check("a row without key", 1, false)
	deliver(store.Delivery{Rows: []store.Row{keyed("plc-1", 1, 1)}})
	check("the same one with it", 1, true)
	deliver(store.Delivery{Rows: []store.Row{row("plc-1", 1, 2)}})
	check("a later one without", 1, true)
	deliver(store.Delivery{Rows: []store.Row{sealed(keyed("plc-1", 2, 3))}})
	check("a later identity that is handed over", 1, true)
	err := s.RecordDelivery(ctx, enrol.Attempt{Device: "plc-1", At: epoch, Kind: enrol.DeliverBundle, Version: enrol.BundleVersion(deviceIdentity("plc-1", 2)), Identity: deviceIdentity("plc-1", 2)})
	if err != nil {
		t.Fatal(err)
	}
	check("the device has proved it", 2, false)
	deliver(store.Delivery{Rows: []store.Row{keyed("plc-1", 1, 1)}})
	check("the manifest from before", 2, false)
	e := requested("plc-1", 1)
	commit(t, s, complete(e, device(t, s, "plc-1"), newIssuer(t, "ca").issue(t, 1, "plc-1", time.Hour), epoch))
	check("an enrolment", 2, true)
	deliver(store.Delivery{Rows: []store.Row{keyed("plc-1", 3, 4)}, Refuse: true})
	check("a later identity at once", 3, true)
	deliver(store.Delivery{Rows: []store.Row{row("plc-1", 4, 5)}, Refuse: true})
	check("another one without key", 4, false)
	d := device(t, s, "plc-1")
	d.Identity.Generation = 5
	e = requested("plc-1", 2)
	c := complete(e, d, newIssuer(t, "ca").issue(t, 2, "plc-1", time.Hour), epoch)
	commit(t, s, c)
	check("an enrolment with a later one", 5, true)

	earliest := ibc.Identity{Epoch: 1, Generation: 1}
	deliver(store.Delivery{Rows: []store.Row{sealed(keyed("plc-2", 2, 6))}, Earliest: earliest})
	if d := device(t, s, "plc-2"); d.Identity.Generation != 1 || d.PublicKey != nil {
		t.Errorf("a new one that may have an earlier identity: %s with %x", d.Identity, d.PublicKey)
	}
	short := keyed("plc-3", 1, 7)
	short.PublicKey = short.PublicKey[1:]
	_, err = s.PutDevices(ctx, store.Delivery{Rows: []store.Row{short}})
	wantError(t, "a short key", err, store.ErrInvalid)
}
