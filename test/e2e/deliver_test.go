package e2e

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/store"
	"github.com/edgeclm/edgeclm/internal/store/sqlite"
)

func (p *plant) courier() *enrol.Courier {
	return &enrol.Courier{
		Store: p.store, Queue: p.store, Dialer: p.runner.Dialer, Params: p.runner.Params, Now: p.clmClock.now, Log: quiet(),
	}
}

// later is the row of a manifest that calls for a later generation of a device,
// with the PKG's bundle beside it.
func (p *plant) later(n *node, generation uint32) store.Row {
	p.t.Helper()
	return store.Row{
		Identity: value[ibc.Identity](p.t)(ibc.NewIdentity(ibc.RoleDevice, n.name, 1, generation)),
		Address:  n.addr, Names: fleet.DefaultNames(n.name), LedgerIndex: 1000 + uint64(generation),
		Sealed: p.issue(n, p.master, generation, nil, bundle.Peer{Name: clmName, Epoch: 1, Generation: 1}),
	}
}

// commissionLater queues the bundles of manifest rows.
func (p *plant) commissionLater(rows ...store.Row) {
	p.t.Helper()
	n, err := p.store.PutDevices(context.Background(), store.Delivery{At: p.clmClock.now(), Source: "test", Rows: rows})
	if err != nil || n.Queued != len(rows) {
		p.t.Fatalf("commissioned %+v, %v", n, err)
	}
}

// settled holds that a device is of a generation, the inventory knows, and
// nothing waits any more.
func (p *plant) settled(n *node, generation uint32) {
	p.t.Helper()
	row := value[fleet.Device](p.t)(p.store.Device(context.Background(), n.name))
	if row.Identity.Generation != generation || row.Next != (ibc.Identity{}) || n.agent.Identity() != row.Identity {
		p.t.Errorf("the inventory has %s, next %s; the device is %s", row.Identity, row.Next, n.agent.Identity())
	}
	if left := value[[]enrol.Delivery](p.t)(p.store.OutstandingDeliveries(context.Background(), n.name)); len(left) != 0 {
		p.t.Errorf("%d deliveries to %s wait", len(left), n.name)
	}
}

// TestNewKeysForAFleet: the PKG has issued the next generation of two devices;
// one is renewed anyway, the other one is only visited. Both present the later
// identity from then on, and whoever kept a copy of the earlier key is refused
// by the CLM.
func TestNewKeysForAFleet(t *testing.T) {
	p := newPlant(t)
	nodes := map[string]*node{}
	addresses := map[string]string{}
	for _, name := range []string{"plc-1", "plc-2"} {
		n := p.provision(name, fleet.ECDSAP256)
		n.serve()
		nodes[name], addresses[name] = n, n.addr
	}
	p.commission(addresses)
	for _, n := range nodes {
		p.renewed(n)
	}
	// Somebody has copied the card of one of them.
	copied := &node{p: p, name: "plc-2", dir: filepath.Join(t.TempDir(), "copy"), algo: fleet.ECDSAP256}
	if out, err := exec.Command("cp", "-a", nodes["plc-2"].dir, copied.dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	p.commissionLater(p.later(nodes["plc-1"], 2), p.later(nodes["plc-2"], 3))
	p.renewed(nodes["plc-1"])
	p.settled(nodes["plc-1"], 2)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if r := p.courier().Run(ctx, "plc-2", false); r.Outcome != enrol.OutcomeDelivered {
		t.Fatalf("%s: %v", r.Outcome, r.Err)
	}
	p.settled(nodes["plc-2"], 3)
	for _, n := range nodes {
		n.restart()
		p.renewed(n)
	}

	// The copy answers in the device's place.
	n := nodes["plc-2"]
	n.stop()
	copied.addr = n.addr
	copied.serve()
	n.open()
	defer n.agent.Close()
	p.refused(n, enrol.ClassIdentity, "e1.g1")
}

// TestDeliveryNotTaken: a bundle that the device cannot take (it is sealed to
// another one) stays queued with the device's words, and its certificate is
// renewed all the same; the PKG's next attempt reaches it.
func TestDeliveryNotTaken(t *testing.T) {
	p := newPlant(t)
	n := p.addDevice("plc-1", fleet.ECDSAP256)
	other := p.provision("plc-2", fleet.ECDSAP256)
	p.renewed(n)
	row := p.later(n, 2)
	row.Sealed = p.issue(other, p.master, 2, nil, bundle.Peer{Name: clmName, Epoch: 1, Generation: 1})
	p.commissionLater(row)
	p.renewed(n)
	left := value[[]enrol.Delivery](t)(p.store.OutstandingDeliveries(context.Background(), n.name))
	if len(left) != 1 || left[0].Tries != 1 || left[0].LastError == "" {
		t.Errorf("left: %+v", left)
	}
	if row := value[fleet.Device](t)(p.store.Device(context.Background(), n.name)); row.Identity.Generation != 1 || row.Next.Generation != 2 {
		t.Errorf("the inventory has %s, next %s", row.Identity, row.Next)
	}
	p.commissionLater(p.later(n, 3))
	p.renewed(n)
	p.settled(n, 3)
}

// cutDialer is the real channel with cuts around what a delivery does.
type cutDialer struct {
	*coaplink.Dialer
	cut *cutter
}

func (d cutDialer) Dial(ctx context.Context, row fleet.Device) (dev enrol.Device, err error) {
	d.cut.around("handshake", func() { dev, err = d.Dialer.Dial(ctx, row) })
	if err != nil {
		return nil, err
	}
	return cutLink{dev, d.cut}, nil
}

type cutLink struct {
	enrol.Device
	cut *cutter
}

func (l cutLink) DeliverBundle(ctx context.Context, sealed []byte) (err error) {
	l.cut.around("delivery", func() { err = l.Device.DeliverBundle(ctx, sealed) })
	return err
}

// TestDeliveryCrash kills clmctl before and after each step of a delivery over
// the real channel, in some runs with the device's power failing too. The next
// run of a new process ends in the same state, and nobody is stranded.
func TestDeliveryCrash(t *testing.T) {
	p := newPlant(t)
	n := p.addDevice("plc-1", fleet.ECDSAP256)
	p.renewed(n)
	courier := func(cut *cutter) *enrol.Courier {
		c := p.courier()
		c.Queue, c.Dialer = cutStore{p.store, cut}, cutDialer{p.dialer, cut}
		return c
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	generation := uint32(1)
	die := func(at int) (cut *cutter) {
		generation++
		cut = &cutter{at: at}
		defer func() {
			if r := recover(); r != nil && r != any(died{}) {
				panic(r)
			}
		}()
		row := p.later(n, generation)
		cut.around("queue", func() { p.commissionLater(row) })
		courier(cut).Run(ctx, n.name, false)
		return cut
	}
	total := die(0).passed
	if total < 10 {
		t.Fatalf("only %d points", total)
	}
	p.settled(n, generation)
	for at := 1; at <= total; at++ {
		cut := die(at)
		where := fmt.Sprintf("cut %d, %s", at, cut.where)
		if cut.where == "" {
			t.Fatalf("%s was not reached", where)
		}
		if err := p.store.Close(); err != nil {
			t.Fatal(err)
		}
		p.store = value[*sqlite.Store](t)(sqlite.Open(ctx, filepath.Join(p.dir, "inventory.db"), sqlite.Options{MustExist: true}))
		t.Cleanup(func() { p.store.Close() })
		if at%2 == 0 {
			n.restart()
		}
		if at == 1 { // it died before anything was queued, and the technician begins again
			p.commissionLater(p.later(n, generation))
		}
		r := courier(&cutter{}).Run(ctx, n.name, false)
		if r.Outcome != enrol.OutcomeDelivered && !errors.Is(r.Err, enrol.ErrNothingQueued) {
			t.Fatalf("%s: resumed: %s: %v", where, r.Outcome, r.Err)
		}
		p.settled(n, generation)
		if t.Failed() {
			t.Fatal(where)
		}
	}
	p.runner = p.newRunner(p.store, p.dialer, p.scep)
	p.renewed(n)
}
