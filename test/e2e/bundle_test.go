package e2e

import (
	"context"
	"crypto/rand"
	"errors"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/store"
)

// issue seals a later bundle of a device to its recipient, as the PKG does.
func (p *plant) issue(n *node, master *ibc.MasterSecret, generation uint32, chain []ibc.Succession, peers ...bundle.Peer) []byte {
	p.t.Helper()
	_, recipient, err := agent.Provisioned(n.dir, nil).Recipient()
	if err != nil {
		p.t.Fatal(err)
	}
	present := n.provisioned()
	id := value[ibc.Identity](p.t)(ibc.NewIdentity(ibc.RoleDevice, n.name, master.Params().Epoch(), generation))
	b := &bundle.Bundle{
		Identity: id, Params: master.Params(), Key: value[*ibc.PrivateKey](p.t)(master.Extract(id)),
		Names: present.Names, Peers: peers, RecoveryHash: present.RecoveryHash, Epochs: chain,
	}
	sealed, _, err := bundle.Seal(b, master, recipient)
	if err != nil {
		p.t.Fatal(err)
	}
	return sealed
}

// provisioned is what the device's disk says it is.
func (n *node) provisioned() *bundle.Bundle {
	n.p.t.Helper()
	e, err := agent.Provisioned(n.dir, nil).Load()
	if err != nil {
		n.p.t.Fatal(err)
	}
	return e.Bundle
}

func (n *node) restart() {
	n.stop()
	n.serve()
}

// dial opens a channel to a device as the inventory knows it.
func (p *plant) dial(n *node) enrol.Device {
	p.t.Helper()
	d := value[fleet.Device](p.t)(p.store.Device(context.Background(), n.name))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	link := value[enrol.Device](p.t)(p.runner.Dialer.Dial(ctx, d))
	p.t.Cleanup(func() { _ = link.Close() })
	return link
}

// known is the identity of a device in the inventory.
func (p *plant) known(n *node) ibc.Identity {
	p.t.Helper()
	return value[fleet.Device](p.t)(p.store.Device(context.Background(), n.name)).Identity
}

// clm returns the dialer of a CLM with a key of a master secret, that knows the
// parameters of these epochs.
func (p *plant) clm(master *ibc.MasterSecret, generation uint32, known ...*ibc.Params) *coaplink.Dialer {
	p.t.Helper()
	id := value[ibc.Identity](p.t)(ibc.NewIdentity(ibc.RoleCLM, clmName, master.Params().Epoch(), generation))
	key := value[*ibc.PrivateKey](p.t)(master.Extract(id))
	return &coaplink.Dialer{
		Credential: value[*coaplink.Credential](p.t)(coaplink.NewCredential(key, rand.Reader)),
		Params:     known, Random: rand.Reader,
	}
}

// TestBundleDelivery: a device takes a later generation over the channel of the
// present one, answers there to the end, is the later one from the next
// handshake on, and after a restart.
func TestBundleDelivery(t *testing.T) {
	p := newPlant(t)
	n := p.addDevice("plc-1", fleet.ECDSAP256)
	p.renewed(n)
	ctx := context.Background()
	sealed := p.issue(n, p.master, 2, nil, bundle.Peer{Name: clmName, Epoch: 1, Generation: 1})
	link := p.dial(n)
	for range 2 { // the second time as if the answer had been lost
		if err := link.DeliverBundle(ctx, sealed); err != nil {
			t.Fatal(err)
		}
	}
	if s := value[enrol.DeviceStatus](t)(link.Status(ctx)); s.Identity.Generation != 2 || link.Identity().Generation != 1 {
		t.Errorf("the device says it is %s on the channel of %s", s.Identity, link.Identity())
	}
	_, err := link.RequestCSR(ctx, enrol.CSRRequest{Enrolment: enrol.ID{1}})
	var refusal *enrol.DeviceError
	if !errors.As(err, &refusal) || refusal.Problem != enrol.ProblemReplaced {
		t.Errorf("work on the channel of the earlier identity: %v", err)
	}
	for range 2 {
		p.renewed(n)
		if id := p.known(n); id.Generation != 2 {
			t.Errorf("the inventory has %s", id)
		}
		n.restart()
	}
	if err := p.dial(n).DeliverBundle(ctx, sealed); err != nil {
		t.Errorf("the last bundle again: %v", err)
	}
}

// TestBundleCutBeforeAnybodyKnows: the device has taken a later bundle, and
// then the power fails before the answer leaves. Nobody knows of it; the CLM
// works on with the inventory that it has.
func TestBundleCutBeforeAnybodyKnows(t *testing.T) {
	p := newPlant(t)
	n := p.addDevice("plc-1", fleet.ECDSAP256)
	p.renewed(n)
	sealed := p.issue(n, p.master, 2, nil, bundle.Peer{Name: clmName, Epoch: 1, Generation: 1})
	if err := n.agent.Bundle(context.Background(), p.dialer.Credential.Identity(), sealed); err != nil {
		t.Fatal(err)
	}
	n.restart()
	p.renewed(n)
	if id := p.known(n); id.Generation != 2 {
		t.Errorf("the inventory has %s", id)
	}
}

// switchingCA has the device take a bundle when it has made its CSR.
type switchingCA struct {
	enrol.CA
	deliver func() error
}

func (ca *switchingCA) Submit(ctx context.Context, s enrol.Submission) (enrol.Answer, error) {
	if err := ca.deliver(); err != nil {
		return enrol.Answer{}, err
	}
	return ca.CA.Submit(ctx, s)
}

// TestBundleInTheMiddleOfAnEnrolment: another channel delivers a bundle between
// CSR and verification. The enrolment goes on at once, on a channel of the new
// identity, which signs the receipt; nothing counts as a failure.
func TestBundleInTheMiddleOfAnEnrolment(t *testing.T) {
	p := newPlant(t)
	n := p.addDevice("plc-1", fleet.ECDSAP256)
	p.renewed(n)
	sealed := p.issue(n, p.master, 2, nil, bundle.Peer{Name: clmName, Epoch: 1, Generation: 1})
	delivered := false
	p.runner.CA = &switchingCA{p.scep, func() error {
		delivered = true
		return p.dial(n).DeliverBundle(context.Background(), sealed)
	}}
	p.renewed(n)
	history := value[store.History](t)(p.store.History(context.Background(), n.name, 0))
	for _, c := range history.Certificates {
		if c.Active && c.Receipt.Identity.Generation != 2 {
			t.Errorf("the receipt is by %s", c.Receipt.Identity)
		}
	}
	if !delivered || history.Device.Attempts != 0 || history.Device.LastError != "" {
		t.Errorf("delivered %v, then %d attempts, %q", delivered, history.Device.Attempts, history.Device.LastError)
	}
}

// TestBundleOfLaterEpoch: the PKG has a new master secret. The device takes its
// bundle of the new epoch over the old channel, proves the new identity at
// once, and listens to the CLM's old key until the CLM has come with its new
// one; then never again.
func TestBundleOfLaterEpoch(t *testing.T) {
	p := newPlant(t)
	n := p.addDevice("plc-1", fleet.ECDSAP256)
	p.renewed(n)
	later := value[*ibc.MasterSecret](t)(ibc.Setup(rand.Reader, 2))
	chain := []ibc.Succession{value[ibc.Succession](t)(p.master.Succeed(later.Params()))}
	both := []*ibc.Params{p.master.Params(), later.Params()}
	sealed := p.issue(n, later, 1, chain, bundle.Peer{Name: clmName, Epoch: 2, Generation: 1})
	if err := p.dial(n).DeliverBundle(context.Background(), sealed); err != nil {
		t.Fatal(err)
	}

	p.runner.Params = func(epoch uint32) (enrol.Verifier, error) { return both[epoch-1], nil }
	old, renewed := p.clm(p.master, 1, both...), p.clm(later, 1, both...)
	// Whoever knows no parameters of the new epoch cannot tell it from a stranger.
	p.refused(n, enrol.ClassIdentity, "epoch unknown")
	run := func(d enrol.Dialer) {
		t.Helper()
		p.runner.Dialer = d
		if result := p.run(n.name); result.Outcome != enrol.OutcomeRenewed {
			t.Fatalf("%s: %v", result.Outcome, result.Err)
		}
		if id := p.known(n); id != n.agent.Identity() || id.Epoch != 2 {
			t.Errorf("the inventory has %s, the device is %s", id, n.agent.Identity())
		}
	}
	run(old)
	n.restart()
	run(old)
	run(renewed)
	for range 2 {
		p.runner.Dialer = old
		p.refused(n, enrol.ClassIdentity, "does not accept")
		n.restart()
	}
	run(renewed)
}
