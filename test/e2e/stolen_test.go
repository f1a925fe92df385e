package e2e

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/store"
	"github.com/edgeclm/edgeclm/internal/store/sqlite"
)

// knock is what a thief does: he connects with the stolen key and asks for
// something.
func knock(t *testing.T, thief *coaplink.Dialer, d fleet.Device) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dev, err := thief.Dial(ctx, d)
	if err != nil {
		return err
	}
	_, err = dev.Status(ctx)
	return errors.Join(err, dev.Close())
}

// TestDrillStolenCLMKey is the drill of docs/stolen-clm-key.md. The edge host
// was stolen, with the CLM's key on it; the thief is in the plant's network and
// has a channel open to a device. The PKG issues the next generation of the
// same name to a new host, which takes its devices from the manifest. From the
// new key's first contact with a device on, that device has nothing to do with
// the thief, across restarts; no device has to be told, and one that was off
// meanwhile is as safe from its own first contact on.
func TestDrillStolenCLMKey(t *testing.T) {
	ctx := context.Background()
	p := newPlant(t)
	nodes := map[string]*node{}
	addresses := map[string]string{}
	for _, name := range []string{"plc-1", "plc-2", "plc-off"} {
		n := p.provision(name, fleet.ECDSAP256)
		n.serve()
		nodes[name], addresses[name] = n, n.addr
	}
	p.commission(addresses)
	rows := map[string]fleet.Device{}
	for name, n := range nodes {
		p.renewed(n)
		rows[name] = value[fleet.Device](t)(p.store.Device(ctx, name))
	}
	thief := p.dialer
	const old, replaced = "edgeclm/v1/clm/clm-1/e1.g1", "edgeclm/v1/dev/"

	// What the thief can do before: everything that the CLM can, on any device.
	for name := range nodes {
		if err := knock(t, thief, rows[name]); err != nil {
			t.Fatalf("%s before the drill: %v", name, err)
		}
	}
	open := value[enrol.Device](t)(thief.Dial(ctx, rows["plc-1"]))
	defer open.Close()
	value[enrol.DeviceStatus](t)(open.Status(ctx))
	nodes["plc-off"].stop()

	// The new host: its own key, and an inventory from the manifest.
	host := &plant{t: t, dir: p.dir, master: p.master, ca: p.ca, scep: p.scep, dialer: p.clm(p.master, 2, p.master.Params())}
	host.store = value[*sqlite.Store](t)(sqlite.Open(ctx, filepath.Join(t.TempDir(), "inventory.db"), sqlite.Options{}))
	t.Cleanup(func() { host.store.Close() })
	host.runner = host.newRunner(host.store, host.dialer, host.scep)
	host.commission(addresses)

	// A visit is enough.
	courier := host.courier()
	courier.Visit = true
	visit := func(name string, want enrol.Outcome) {
		t.Helper()
		limited, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if r := courier.Run(limited, name, false); r.Outcome != want {
			t.Fatalf("visit to %s: %s, %v", name, r.Outcome, r.Err)
		}
	}
	visit("plc-1", enrol.OutcomeDelivered)
	refused := func(name, when string) {
		t.Helper()
		err := knock(t, thief, rows[name])
		if !errors.Is(err, enrol.ErrIdentity) || !strings.Contains(err.Error(), old) || !strings.Contains(err.Error(), replaced+name) {
			t.Errorf("%s: %s lets the thief in: %v", when, name, err)
		}
	}
	refused("plc-1", "after the first contact")
	limited, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if _, err := open.Status(limited); err == nil {
		t.Error("the thief's open channel goes on")
	}
	// Nobody was at the other one yet.
	if err := knock(t, thief, rows["plc-2"]); err != nil {
		t.Errorf("plc-2 knows already: %v", err)
	}

	// The device that was off.
	visit("plc-off", enrol.OutcomeFailed)
	nodes["plc-off"].serve()
	if err := knock(t, thief, rows["plc-off"]); err != nil {
		t.Errorf("plc-off knows already: %v", err)
	}
	for name, n := range nodes {
		host.renewed(n) // the whole path, at once, under the new key
		refused(name, "after the sweep")
		n.stop()
		n.serve()
		refused(name, "after a restart")
	}

	// The inventory that was restored from a backup serves as well as a new one.
	p.runner.Dialer = host.dialer
	for _, n := range nodes {
		if r := p.run(n.name); r.Outcome != enrol.OutcomeRenewed {
			t.Errorf("%s with the restored inventory: %v", n.name, r.Err)
		}
	}
	h := value[store.History](t)(host.store.History(ctx, "plc-1", 0))
	if len(h.Enrolments) != 1 || h.Device.Identity.Generation != 1 {
		t.Errorf("%d enrolments, %s", len(h.Enrolments), h.Device.Identity)
	}
}
