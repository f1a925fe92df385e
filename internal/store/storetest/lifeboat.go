package storetest

import (
	"context"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/store"
)

// testLifeboat: a thief of the master secret has made the inventory record the
// highest identity. The rows of the new PKG count all the same, once.
func testLifeboat(t *testing.T, place Place[Store]) {
	ctx := context.Background()
	s := open(t, place)
	put := func(d store.Delivery) store.Counts {
		t.Helper()
		d.At = epoch
		n, err := s.PutDevices(ctx, d)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	old := row("plc-1", 1, 900)
	old.Address = "192.0.2.9:5684"
	put(store.Delivery{Rows: []store.Row{old, row("plc-2", 1, 901)}})
	record(t, s, enrol.Attempt{Device: "plc-1", At: epoch, Identity: deviceIdentity("plc-1", 1<<31-1)})
	queue(t, s, 1, anchorsFor("plc-1", 7, "anchors of the thief"))
	queue(t, s, 1, bundleFor("plc-2", 5, "bundle of the thief"))

	first := row("plc-1", 1, 2)
	first.Sealed, first.Address = []byte("first"), ""
	second := row("plc-2", 1, 3)
	second.Sealed = []byte("second")
	fresh := row("plc-3", 1, 4)
	fresh.Sealed = []byte("third")
	boat := store.Delivery{Rows: []store.Row{first, second, fresh}, Lifeboat: store.Lifeboat{Serial: 3, Statement: []byte("boat+")}}
	if n := put(boat); n.Added != 1 || n.Updated != 2 || n.Queued != 3 {
		t.Errorf("counts %+v", n)
	}
	for name, want := range map[string]string{"plc-1": "lifeboat 3 boat+first", "plc-2": "lifeboat 3 boat+second", "plc-3": "lifeboat 3 boat+third"} {
		if got := versions(outstanding(t, s, name)); got != want {
			t.Errorf("%s waits for %q, want %q", name, got, want)
		}
		d, err := s.Device(ctx, name)
		if err != nil || d.Identity != deviceIdentity(name, 1) {
			t.Errorf("%s is %s, %v", name, d.Identity, err)
		}
	}
	if d, err := s.Device(ctx, "plc-1"); err != nil || d.Address != old.Address {
		t.Errorf("the address is %q, %v", d.Address, err)
	}
	if n := put(boat); n.Unchanged != 3 || n.Queued != 0 {
		t.Errorf("again: %+v", n)
	}
	record(t, s, enrol.Attempt{Device: "plc-1", Kind: enrol.DeliverLifeboat, Version: 3, At: epoch.Add(time.Hour), Identity: deviceIdentity("plc-1", 1)})
	if n := put(boat); n.Queued != 0 || len(outstanding(t, s, "plc-1")) > 0 {
		t.Errorf("after it was delivered: %+v", n)
	}
	aboard, err := s.Aboard(ctx, 3)
	if got := slices.Sorted(maps.Keys(aboard)); err != nil || !slices.Equal(got, []string{"plc-1", "plc-2", "plc-3"}) {
		t.Errorf("aboard are %v, %v", got, err)
	}
	if aboard, err := s.Aboard(ctx, 4); err != nil || len(aboard) > 0 {
		t.Errorf("aboard of another are %v, %v", aboard, err)
	}
	// From then on it is as before: a later generation is queued as a bundle.
	later := row("plc-1", 2, 5)
	later.Sealed = []byte("later")
	if n := put(store.Delivery{Rows: []store.Row{later}, Lifeboat: boat.Lifeboat}); n.Queued != 1 {
		t.Errorf("a later generation: %+v", n)
	}
	if got := outstanding(t, s, "plc-1"); len(got) != 1 || got[0].Kind != enrol.DeliverBundle {
		t.Errorf("plc-1 waits for %v", versions(got))
	}
}
