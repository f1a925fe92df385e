package agent_test

import (
	"testing"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

func TestFloors(t *testing.T) {
	d := newDevice(t)
	at := func(name string, epoch, generation uint32) ibc.Identity {
		return ibc.Identity{Role: ibc.RoleCLM, Name: name, Epoch: epoch, Generation: generation}
	}
	want := func(name string, epoch, generation uint32, ok bool) {
		t.Helper()
		if e, g, known := d.agent.Floor(name); e != epoch || g != generation || known != ok {
			t.Errorf("the floor of %s is e%d.g%d, %v; want e%d.g%d, %v", name, e, g, known, epoch, generation, ok)
		}
	}
	want("clm-1", 1, 1, true)
	want("clm-2", 1, 3, true)
	want("clm-3", 0, 0, false)

	d.ok(d.agent.Remember([32]byte{1}, at("clm-1", 1, 1)))
	d.ok(d.agent.Remember([32]byte{2}, at("clm-2", 1, 3)))
	d.ok(d.agent.Raise(at("clm-1", 1, 5), 0))
	d.ok(d.agent.Raise(at("clm-1", 1, 4), 0)) // does nothing
	for range 2 {
		want("clm-1", 1, 5, true)
		want("clm-2", 1, 3, true)
		if _, ok := d.agent.Cached([32]byte{1}); ok {
			t.Error("a binding below the floor is still cached")
		}
		if id, ok := d.agent.Cached([32]byte{2}); !ok || id != at("clm-2", 1, 3) {
			t.Errorf("the binding of clm-2 is %v, %v", id, ok)
		}
		d.restart()
	}
	for _, id := range []ibc.Identity{
		at("clm-3", 1, 9), {Role: ibc.RoleDevice, Name: "clm-1", Epoch: 1, Generation: 9},
	} {
		if d.agent.Raise(id, 0) == nil || d.agent.Remember([32]byte{3}, id) == nil {
			t.Errorf("%s was accepted", id)
		}
	}
	if d.agent.Remember([32]byte{3}, at("clm-1", 1, 4)) == nil {
		t.Error("a binding below the floor was accepted")
	}
	want("clm-1", 1, 5, true)

	// A later epoch is above every generation; the bundle's floor counts too.
	d.ok(d.agent.Raise(at("clm-1", 2, 1), 0))
	want("clm-1", 2, 1, true)
	d.stop()
	b := newBundle(t, 2)
	b.Peers = b.Peers[:1]
	b.Peers[0].Generation = 7
	must[bool](t)(agent.Provision(d.cfg.Dir, nil, b))
	d.start()
	want("clm-1", 2, 1, true)
	// clm-2 is gone when a CLM has been seen under the later bundle.
	want("clm-2", 1, 3, true)
	d.agent.Settle(b.Identity, at("clm-1", 1, 8))
	want("clm-2", 0, 0, false)
}

// One CLM's bindings are bounded and push out no other's.
func TestBindingsAreBounded(t *testing.T) {
	d := newDevice(t)
	other := ibc.Identity{Role: ibc.RoleCLM, Name: "clm-2", Epoch: 1, Generation: 3}
	d.ok(d.agent.Remember([32]byte{0xff}, other))
	for i := range byte(10) {
		d.ok(d.agent.Remember([32]byte{i}, d.peer))
	}
	d.ok(d.agent.Remember([32]byte{9}, d.peer))
	d.restart()
	if _, ok := d.agent.Cached([32]byte{0xff}); !ok {
		t.Error("the binding of clm-2 is gone")
	}
	for i := range byte(10) {
		if _, ok := d.agent.Cached([32]byte{i}); ok != (i >= 6) {
			t.Errorf("binding %d of 10 is cached: %v", i+1, ok)
		}
	}
}
