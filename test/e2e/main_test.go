package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/coaplink/lossy"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/store"
)

// TestEveryKey enrols and renews a device for each kind of key.
func TestEveryKey(t *testing.T) {
	p := newPlant(t)
	for _, algo := range []fleet.KeyAlgorithm{fleet.ECDSAP256, fleet.ECDSAP384, fleet.RSA2048, fleet.RSA3072} {
		n := p.addDevice("plc-"+string(algo), algo)
		first := p.renewed(n)
		second := p.renewed(n)
		if first.SHA256 == second.SHA256 {
			t.Errorf("%s: not renewed", algo)
		}
	}
}

// TestSteps: the five steps of the paper are on record, and are part of the whole.
func TestSteps(t *testing.T) {
	p := newPlant(t)
	n := p.addDevice("plc-1", fleet.RSA2048)
	p.renewed(n)
	history := value[store.History](t)(p.store.History(context.Background(), n.name, 0))
	e := history.Enrolments[0]
	s := e.Steps
	for name, d := range map[string]int64{
		"CSR request": int64(s.CSRRequest), "key and CSR": int64(s.KeyAndCSR), "enrolment": int64(s.Enrolment),
		"verify request": int64(s.VerifyRequest), "verification": int64(s.Verification),
	} {
		if d <= 0 {
			t.Errorf("step %s took %d ns", name, d)
		}
	}
	if whole := e.UpdatedAt.Sub(e.CreatedAt); s.Total() > whole {
		t.Errorf("the steps took %s of %s", s.Total(), whole)
	}
}

// TestExpiredDeviceRenews is the product's headline: a device whose certificate
// has expired renews like any other.
func TestExpiredDeviceRenews(t *testing.T) {
	p := newPlant(t)
	n := p.addDevice("plc-1", fleet.ECDSAP256)
	first := p.renewed(n)
	late := first.NotAfter.AddDate(0, 2, 0)
	p.clmClock.set(late)
	p.caClock.set(late)
	n.clock.set(late)
	row := value[fleet.Device](t)(p.store.Device(context.Background(), n.name))
	if row.State(p.clmClock.now()) != fleet.NotOperational {
		t.Error("operational with an expired certificate")
	}
	p.renewed(n)
}

// TestDeviceRestartsInBetween: the device's power fails between the two
// exchanges, and its channel with it.
func TestDeviceRestartsInBetween(t *testing.T) {
	p := newPlant(t)
	n := p.addDevice("plc-1", fleet.ECDSAP256)
	p.runner.CA = &hookedCA{CA: p.scep, before: func() { n.stop(); n.serve() }}
	p.renewed(n)
}

// TestGoodbyeIsLost: the same, and the CLM does not learn that its channel is
// gone: the first call on it meets nobody who knows it.
func TestGoodbyeIsLost(t *testing.T) {
	p := newPlant(t)
	p.dialer.Timeouts.Silence = 2 * time.Second
	n := p.provision("plc-1", fleet.ECDSAP256)
	n.serve()
	proxy := lossy.New(t, n.addr, lossy.Faults{})
	p.commission(map[string]string{n.name: proxy.Addr()})
	p.runner.CA = &hookedCA{CA: p.scep, before: func() {
		proxy.Sever(true)
		n.stop()
		proxy.Rebind()
		n.serve()
		proxy.Sever(false)
	}}
	p.renewed(n)
}

// hookedCA lets something happen before the CA is asked.
type hookedCA struct {
	enrol.CA
	before func()
}

func (ca *hookedCA) Submit(ctx context.Context, s enrol.Submission) (enrol.Answer, error) {
	ca.before()
	return ca.CA.Submit(ctx, s)
}

// TestManyAtOnce enrols several devices side by side.
func TestManyAtOnce(t *testing.T) {
	p := newPlant(t)
	nodes := map[string]*node{}
	addresses := map[string]string{}
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		n := p.provision("plc-"+name, fleet.ECDSAP256)
		n.serve()
		nodes[n.name], addresses[n.name] = n, n.addr
	}
	p.commission(addresses)
	results := make(chan enrol.Result, len(nodes))
	for name := range nodes {
		go func() { results <- p.run(name) }()
	}
	for range nodes {
		if r := <-results; r.Outcome != enrol.OutcomeRenewed {
			t.Errorf("%s: %s: %v", r.Device, r.Outcome, r.Err)
		}
	}
	for _, n := range nodes {
		p.checkWhole(n)
	}
}
