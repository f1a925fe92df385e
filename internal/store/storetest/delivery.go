package storetest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/store"
)

// queue queues deliveries and wants so many of them to be new.
func queue(t testing.TB, s Store, want int, deliveries ...enrol.Delivery) {
	t.Helper()
	n, err := s.QueueDeliveries(context.Background(), deliveries)
	if err != nil || n != want {
		t.Errorf("queued %d, %v, want %d", n, err, want)
	}
}

func outstanding(t testing.TB, s Store, device string) []enrol.Delivery {
	t.Helper()
	out, err := s.OutstandingDeliveries(context.Background(), device)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func record(t testing.TB, s Store, a enrol.Attempt) {
	t.Helper()
	if err := s.RecordDelivery(context.Background(), a); err != nil {
		t.Fatal(err)
	}
}

// bundleFor is a delivery of a later generation, with a payload of its own.
func bundleFor(device string, generation uint32, payload string) enrol.Delivery {
	version := enrol.BundleVersion(deviceIdentity(device, generation))
	return enrol.NewDelivery(device, enrol.DeliverBundle, version, []byte(payload), epoch)
}

func anchorsFor(device string, serial uint64, payload string) enrol.Delivery {
	return enrol.NewDelivery(device, enrol.DeliverAnchors, serial, []byte(payload), epoch)
}

func versions(deliveries []enrol.Delivery) string {
	var out []string
	for _, d := range deliveries {
		out = append(out, fmt.Sprintf("%s %d %s", d.Kind, d.Version, d.Payload))
	}
	return strings.Join(out, ", ")
}

func testDeliveries(t *testing.T, place Place[Store]) {
	s := open(t, place)
	put(t, s, "plc-1", "plc-2")
	same(t, "none", outstanding(t, s, "plc-1"), []enrol.Delivery(nil))
	same(t, "of an unknown device", outstanding(t, s, "plc-9"), []enrol.Delivery(nil))

	bundle, anchors := bundleFor("plc-1", 2, "sealed"), anchorsFor("plc-1", 7, "statement")
	root := enrol.NewDelivery("plc-1", enrol.DeliverCrossSigned, 1, bytes.Repeat([]byte{0xda}, enrol.MaxDelivery), epoch)
	queue(t, s, 4, bundle, root, anchors, anchorsFor("plc-2", 7, "statement"))
	queue(t, s, 0, bundle, root, anchors)
	s = reopen(t, s, place)
	same(t, "queued", outstanding(t, s, "plc-1"), []enrol.Delivery{anchors, root, bundle})

	// A failure is kept and counted, until the device has it.
	later := epoch.Add(time.Hour)
	for _, why := range []string{"unreachable", "the device refused"} {
		record(t, s, enrol.Attempt{Device: "plc-1", Kind: enrol.DeliverAnchors, Version: 7, At: later, Failure: why})
	}
	s = reopen(t, s, place)
	got := outstanding(t, s, "plc-1")[0]
	if got.Tries != 2 || got.LastError != "the device refused" || !got.Outstanding() {
		t.Errorf("after failures: %+v", got)
	}
	record(t, s, enrol.Attempt{Device: "plc-1", Kind: enrol.DeliverAnchors, Version: 7, At: later})
	// The same payload still waits for the other device.
	same(t, "the others", versions(outstanding(t, s, "plc-2")), "anchors 7 statement")
	same(t, "what is left", outstanding(t, s, "plc-1"), []enrol.Delivery{root, bundle})
	record(t, s, enrol.Attempt{Device: "plc-2", Kind: enrol.DeliverAnchors, Version: 7, At: later})
	s = reopen(t, s, place)
	// What was delivered is not queued again.
	queue(t, s, 0, anchors)
	queue(t, s, 1, anchorsFor("plc-2", 8, "statement"))

	// What is not outstanding is not recorded.
	record(t, s, enrol.Attempt{Device: "plc-1", Kind: enrol.DeliverAnchors, Version: 7, At: later, Failure: "late"})
	record(t, s, enrol.Attempt{Device: "plc-1", Kind: enrol.DeliverBundle, Version: 99, At: later})
	same(t, "unmoved", outstanding(t, s, "plc-1"), []enrol.Delivery{root, bundle})
	wantError(t, "unknown", s.RecordDelivery(context.Background(), enrol.Attempt{Device: "plc-9", Kind: enrol.DeliverBundle, Version: 1, At: later}), enrol.ErrNotFound)
}

func testDeliverySupersede(t *testing.T, place Place[Store]) {
	s := open(t, place)
	put(t, s, "plc-1")
	queue(t, s, 1, anchorsFor("plc-1", 5, "five"))
	record(t, s, enrol.Attempt{Device: "plc-1", Kind: enrol.DeliverAnchors, Version: 5, At: epoch, Failure: "no"})
	queue(t, s, 0, anchorsFor("plc-1", 4, "four"))
	same(t, "the later one", versions(outstanding(t, s, "plc-1")), "anchors 5 five")
	// Sealed again after a crash at the PKG: another payload, the same version.
	queue(t, s, 1, anchorsFor("plc-1", 5, "five again"))
	same(t, "replaced", outstanding(t, s, "plc-1"), []enrol.Delivery{anchorsFor("plc-1", 5, "five again")})
	queue(t, s, 1, anchorsFor("plc-1", 6, "six"))
	same(t, "superseded", versions(outstanding(t, s, "plc-1")), "anchors 6 six")
	record(t, s, enrol.Attempt{Device: "plc-1", Kind: enrol.DeliverAnchors, Version: 5, At: epoch})
	same(t, "an old one's success", versions(outstanding(t, s, "plc-1")), "anchors 6 six")
	record(t, s, enrol.Attempt{Device: "plc-1", Kind: enrol.DeliverAnchors, Version: 6, At: epoch})
	queue(t, s, 0, anchorsFor("plc-1", 6, "six again"), anchorsFor("plc-1", 5, "five"))
	// Several versions in one call: the last word counts.
	queue(t, s, 2, anchorsFor("plc-1", 7, "seven"), anchorsFor("plc-1", 8, "eight"))
	same(t, "the last", versions(outstanding(t, s, "plc-1")), "anchors 8 eight")
}

func testDeliveryAtomic(t *testing.T, place Place[Store]) {
	ctx := context.Background()
	s := open(t, place)
	put(t, s, "plc-1")
	good := anchorsFor("plc-1", 1, "good")
	broken := func(change func(*enrol.Delivery)) enrol.Delivery {
		d := anchorsFor("plc-1", 2, "bad")
		change(&d)
		return d
	}
	for name, bad := range map[string]enrol.Delivery{
		"kind":    broken(func(d *enrol.Delivery) { d.Kind = "firmware" }),
		"version": broken(func(d *enrol.Delivery) { d.Version = 0 }),
		"large":   broken(func(d *enrol.Delivery) { d.Version = 1 << 63 }),
		"digest":  broken(func(d *enrol.Delivery) { d.Digest[0] ^= 1 }),
		"empty":   anchorsFor("plc-1", 2, ""),
		"long":    anchorsFor("plc-1", 2, strings.Repeat("x", enrol.MaxDelivery+1)),
		"epoch 0": enrol.NewDelivery("plc-1", enrol.DeliverBundle, 7, []byte("x"), epoch),
	} {
		_, err := s.QueueDeliveries(ctx, []enrol.Delivery{good, bad})
		wantError(t, name, err, enrol.ErrDelivery)
	}
	_, err := s.QueueDeliveries(ctx, []enrol.Delivery{good, anchorsFor("plc-9", 1, "x")})
	wantError(t, "unknown device", err, enrol.ErrNotFound)
	same(t, "nothing was stored", outstanding(t, s, "plc-1"), []enrol.Delivery(nil))

	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	_, err = s.QueueDeliveries(cancelled, []enrol.Delivery{good})
	wantError(t, "cancelled", err, context.Canceled)
}

// testDeliveryBundle: an identity that is queued is the device's next one, and
// the one that it proves is the earliest that is accepted.
func testDeliveryBundle(t *testing.T, place Place[Store]) {
	s := open(t, place)
	put(t, s, "plc-1")
	first := deviceIdentity("plc-1", 1)
	queue(t, s, 0, bundleFor("plc-1", 1, "it has this one"))
	queue(t, s, 1, bundleFor("plc-1", 3, "sealed"))
	s = reopen(t, s, place)
	if d := device(t, s, "plc-1"); d.Identity != first || d.Next != deviceIdentity("plc-1", 3) {
		t.Errorf("queued: %s, next %s", d.Identity, d.Next)
	}
	// A failed try may have shown a later identity all the same.
	version := enrol.BundleVersion(deviceIdentity("plc-1", 3))
	record(t, s, enrol.Attempt{Device: "plc-1", Kind: enrol.DeliverBundle, Version: version, At: epoch, Failure: "no", Identity: deviceIdentity("plc-1", 2)})
	if d := device(t, s, "plc-1"); d.Identity != deviceIdentity("plc-1", 2) || d.Next != deviceIdentity("plc-1", 3) {
		t.Errorf("tried: %s, next %s", d.Identity, d.Next)
	}
	record(t, s, enrol.Attempt{Device: "plc-1", Kind: enrol.DeliverBundle, Version: version, At: epoch, Identity: deviceIdentity("plc-1", 3)})
	s = reopen(t, s, place)
	if d := device(t, s, "plc-1"); d.Identity != deviceIdentity("plc-1", 3) || d.Next != (ibc.Identity{}) {
		t.Errorf("delivered: %s, next %s", d.Identity, d.Next)
	}
	// An earlier one does not lower it, another device's is refused.
	record(t, s, enrol.Attempt{Device: "plc-1", Kind: enrol.DeliverBundle, Version: version, At: epoch, Identity: first})
	if d := device(t, s, "plc-1"); d.Identity != deviceIdentity("plc-1", 3) {
		t.Errorf("lowered to %s", d.Identity)
	}
	if err := s.RecordDelivery(context.Background(), enrol.Attempt{Device: "plc-1", Kind: enrol.DeliverBundle, Version: version, At: epoch, Identity: deviceIdentity("plc-2", 9)}); err == nil {
		t.Error("took the identity of another device")
	}
	// A device that got its bundle by hand is not behind, though it is still queued.
	queue(t, s, 1, bundleFor("plc-1", 4, "sealed"))
	e := requested("plc-1", 1)
	d := device(t, s, "plc-1")
	d.Identity = deviceIdentity("plc-1", 4)
	commit(t, s, enrol.Change{Enrolment: e, Device: &d})
	if d := device(t, s, "plc-1"); d.Identity != deviceIdentity("plc-1", 4) || d.Next != (ibc.Identity{}) {
		t.Errorf("by hand: %s, next %s", d.Identity, d.Next)
	}
}

// testDeliveryRace: processes that queue the same at the same time queue it once.
func testDeliveryRace(t *testing.T, place Place[Store]) {
	stores := []Store{open(t, place), open(t, place), open(t, place)}
	put(t, stores[0], "plc-1", "plc-2")
	total := make(chan int, len(stores)*3)
	var all sync.WaitGroup
	for _, s := range stores {
		for range 3 {
			all.Go(func() {
				n, err := s.QueueDeliveries(context.Background(), []enrol.Delivery{bundleFor("plc-1", 2, "a"), bundleFor("plc-2", 2, "b")})
				if err != nil {
					t.Error(err)
				}
				total <- n
			})
		}
	}
	all.Wait()
	close(total)
	sum := 0
	for n := range total {
		sum += n
	}
	if sum != 2 {
		t.Errorf("%d were new", sum)
	}
}

func testOutstanding(t *testing.T, place Place[Inventory]) {
	ctx := context.Background()
	s := open(t, place)
	put(t, s, "plc-2", "plc-1", "plc-3")
	queue(t, s, 3, bundleFor("plc-2", 2, "two"), bundleFor("plc-1", 2, "one"), anchorsFor("plc-2", 4, "anchors"))
	record(t, s, enrol.Attempt{Device: "plc-2", Kind: enrol.DeliverAnchors, Version: 4, At: epoch.Add(time.Minute)})
	all, err := s.Outstanding(ctx)
	if err != nil {
		t.Fatal(err)
	}
	one, two := bundleFor("plc-1", 2, "one"), bundleFor("plc-2", 2, "two")
	one.Payload, two.Payload = nil, nil
	same(t, "outstanding", all, []enrol.Delivery{one, two})

	h, err := s.History(ctx, "plc-2", 0)
	if err != nil {
		t.Fatal(err)
	}
	anchors := anchorsFor("plc-2", 4, "anchors")
	anchors.Payload, anchors.DeliveredAt = nil, epoch.Add(time.Minute)
	same(t, "history", h.Deliveries, []enrol.Delivery{two, anchors})
	same(t, "events", lastEvents(t, s, "plc-2"), []string{
		"queued: the bundle of edgeclm/v1/dev/plc-2/e1.g2", "queued: trust anchors, serial 4", "delivered: trust anchors, serial 4",
	})
}

// testCommissionBundle: a later identity whose bundle came with the manifest is
// queued, and the earlier one stays accepted until the device has proved it;
// else the device could not be reached to get it.
func testCommissionBundle(t *testing.T, place Place[Store]) {
	s := open(t, place)
	put(t, s, "plc-1", "plc-2")
	commission := func(want store.Counts, refuse bool, rows ...store.Row) {
		t.Helper()
		n, err := s.PutDevices(context.Background(), store.Delivery{At: epoch, Source: "manifest.json", Rows: rows, Refuse: refuse})
		if err != nil || n != want {
			t.Errorf("counts %+v, %v, want %+v", n, err, want)
		}
	}
	accepts := func(what string, generation, next uint32) {
		t.Helper()
		d := device(t, s, "plc-1")
		want := ibc.Identity{}
		if next > 0 {
			want = deviceIdentity("plc-1", next)
		}
		if d.Identity != deviceIdentity("plc-1", generation) || d.Next != want {
			t.Errorf("%s: accepts %s, next %s", what, d.Identity, d.Next)
		}
	}
	with := func(r store.Row, sealed string) store.Row {
		r.Sealed = []byte(sealed)
		return r
	}
	second, third, fourth := row("plc-1", 2, 10), row("plc-1", 3, 11), row("plc-1", 4, 12)

	commission(store.Counts{Updated: 1, Queued: 1}, false, with(third, "three"))
	accepts("queued", 1, 3)
	same(t, "address", device(t, s, "plc-1").Address, third.Address)
	same(t, "waiting", versions(outstanding(t, s, "plc-1")), fmt.Sprintf("bundle %d three", enrol.BundleVersion(third.Identity)))
	s = reopen(t, s, place)
	commission(store.Counts{Unchanged: 1}, false, with(third, "three"))
	commission(store.Counts{Unchanged: 1}, false, third) // the bundle is not beside it any more
	commission(store.Counts{Skipped: 1}, false, with(second, "two"))
	commission(store.Counts{Skipped: 1}, false, second)
	accepts("again", 1, 3)
	commission(store.Counts{Updated: 1, Queued: 1}, false, with(third, "three, sealed again"))
	same(t, "sealed again", versions(outstanding(t, s, "plc-1")), fmt.Sprintf("bundle %d three, sealed again", enrol.BundleVersion(third.Identity)))

	// Without a bundle the manifest's word counts at once.
	commission(store.Counts{Updated: 1}, false, fourth)
	accepts("without its bundle", 4, 0)
	// So it does on demand.
	fifth := with(row("plc-1", 5, 13), "five")
	commission(store.Counts{Updated: 1}, true, fifth)
	accepts("on demand", 5, 0)
	// What is new here is not behind: its bundle was carried by hand.
	commission(store.Counts{Added: 1}, false, with(row("plc-9", 7, 20), "nine"))
	same(t, "a new device", outstanding(t, s, "plc-9"), []enrol.Delivery(nil))

	// But if an inventory was lost meanwhile, a new device may be behind.
	if n, err := s.PutDevices(context.Background(), store.Delivery{
		At: epoch, Source: "x", Earliest: ibc.Identity{Epoch: 1, Generation: 2},
		Rows: []store.Row{with(row("plc-5", 3, 21), "five"), row("plc-6", 3, 22), with(row("plc-7", 2, 23), "seven")},
	}); err != nil || n != (store.Counts{Added: 3, Queued: 1}) {
		t.Errorf("new devices: %+v, %v", n, err)
	}
	for name, want := range map[string]uint32{"plc-5": 2, "plc-6": 3, "plc-7": 2} {
		if d := device(t, s, name); d.Identity.Generation != want || (d.Next.Generation == 3) != (name == "plc-5") {
			t.Errorf("%s: accepts %s, next %s", name, d.Identity, d.Next)
		}
	}

	_, err := s.PutDevices(context.Background(), store.Delivery{At: epoch, Source: "x", Rows: []store.Row{
		row("plc-2", 2, 30), with(row("plc-1", 6, 31), strings.Repeat("x", enrol.MaxDelivery+1)),
	}})
	wantError(t, "too long", err, store.ErrInvalid)
	if d := device(t, s, "plc-2"); d.Identity != deviceIdentity("plc-2", 1) {
		t.Errorf("a part was stored: %s", d.Identity)
	}
}
