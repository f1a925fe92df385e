package coaplink

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// changingSelf is a device whose identity changes.
type changingSelf struct {
	mu      sync.Mutex
	key     *ibc.PrivateKey
	known   []*ibc.Params
	root    uint32
	settled [][2]ibc.Identity
	onceFor func(own, peer ibc.Identity)
}

func (s *changingSelf) Present() (*ibc.PrivateKey, []*ibc.Params) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.key, s.known
}

func (s *changingSelf) Root() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.root
}

func (s *changingSelf) Settle(own, peer ibc.Identity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled = append(s.settled, [2]ibc.Identity{own, peer})
	if s.onceFor != nil {
		s.onceFor(own, peer)
	}
}

func (s *changingSelf) become(key *ibc.PrivateKey, known ...*ibc.Params) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key, s.known = key, known
}

func (s *changingSelf) settles() [][2]ibc.Identity {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([][2]ibc.Identity(nil), s.settled...)
}

func (p *memoryPeers) setFloor(name string, epoch, generation uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.floors[name] = [2]uint32{epoch, generation}
}

func wantReplaced(t *testing.T, what string, err error) {
	t.Helper()
	var refusal *enrol.DeviceError
	if !errors.As(err, &refusal) || refusal.Problem != enrol.ProblemReplaced {
		t.Errorf("%s: %v", what, err)
	}
}

// TestReplacedIdentity: the identity changes while a channel lasts. What
// delivers the bundle is served there to its end, nothing else; the next
// handshake proves the new identity, and is reported before it is served.
func TestReplacedIdentity(t *testing.T) {
	p := newPKG(t, 1)
	first, second := p.key(t, ibc.RoleDevice, "plc-1", 1), p.key(t, ibc.RoleDevice, "plc-1", 2)
	self := &changingSelf{key: first, known: []*ibc.Params{p.Params()}}
	services := &fakeServices{status: sampleStatus(first.Identity()), csr: []byte{0x30, 0}}
	services.setHook(func(call string) {
		if call == "bundle" {
			self.become(second, p.Params())
		}
	})
	s := newServer(first, newPeers("clm-1"), services)
	s.Self = self
	addr, _ := serve(t, s)
	ctx := context.Background()
	old := dial(t, p.dialer(t, "clm-1", 1), deviceAt(first, addr))
	for range 2 {
		if err := old.DeliverBundle(ctx, []byte("sealed")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := old.Status(ctx); err != nil {
		t.Errorf("status on the old channel: %v", err)
	}
	_, err := old.RequestCSR(ctx, enrol.CSRRequest{Enrolment: enrol.ID{1}})
	wantReplaced(t, "CSR", err)
	_, err = old.VerifyCertificate(ctx, enrol.VerifyRequest{Enrolment: enrol.ID{1}, Certificates: [][]byte{{1}}})
	wantReplaced(t, "verification", err)
	wantReplaced(t, "activation", old.Activate(ctx, enrol.ID{1}, [32]byte{}, 0))
	wantReplaced(t, "anchors", old.DeliverAnchors(ctx, enrol.AnchorChange{Statement: []byte("x")}))
	if n := services.count("csr") + services.count("verify") + services.count("activate") + services.count("anchors"); n != 0 {
		t.Errorf("%d requests were served for the earlier identity", n)
	}

	renewed := dial(t, p.dialer(t, "clm-1", 1), deviceAt(first, addr))
	if renewed.Identity() != second.Identity() {
		t.Errorf("the device proves %s", renewed.Identity())
	}
	if _, err := renewed.RequestCSR(ctx, enrol.CSRRequest{Enrolment: enrol.ID{1}}); err != nil {
		t.Error(err)
	}
	clm := ibc.Identity{Role: ibc.RoleCLM, Name: "clm-1", Epoch: 1, Generation: 1}
	got := self.settles()
	if len(got) != 2 || got[0] != [2]ibc.Identity{first.Identity(), clm} || got[1] != [2]ibc.Identity{second.Identity(), clm} {
		t.Errorf("handshakes were reported as %v", got)
	}
}

// TestIdentityReplacedDuringRequest: the identity changes while a request is
// being served. Its answer may be the new identity's, so it is not given.
func TestIdentityReplacedDuringRequest(t *testing.T) {
	p := newPKG(t, 1)
	first, second := p.key(t, ibc.RoleDevice, "plc-1", 1), p.key(t, ibc.RoleDevice, "plc-1", 2)
	self := &changingSelf{key: first, known: []*ibc.Params{p.Params()}}
	services := &fakeServices{csr: []byte{0x30, 0}}
	services.setHook(func(string) { self.become(second, p.Params()) })
	s := newServer(first, newPeers("clm-1"), services)
	s.Self = self
	addr, _ := serve(t, s)
	link := dial(t, p.dialer(t, "clm-1", 1), deviceAt(first, addr))
	_, err := link.RequestCSR(context.Background(), enrol.CSRRequest{Enrolment: enrol.ID{1}})
	wantReplaced(t, "CSR", err)
	if services.count("csr") != 1 {
		t.Error("the request was not being served")
	}
}

// TestSettlingClosesOthers: a CLM that is accepted no more once another has
// shown itself under the new bundle loses its open channel too, whatever its name.
func TestSettlingClosesOthers(t *testing.T) {
	p := newPKG(t, 1)
	key := p.key(t, ibc.RoleDevice, "plc-1", 1)
	peers := newPeers("clm-1", "clm-2")
	self := &changingSelf{key: key, known: []*ibc.Params{p.Params()}}
	self.onceFor = func(_, peer ibc.Identity) {
		if peer.Name == "clm-1" {
			peers.setFloor("clm-2", 1, 2)
		}
	}
	s := newServer(key, peers, &fakeServices{status: sampleStatus(key.Identity())})
	s.Self = self
	addr, _ := serve(t, s)
	dropped := dial(t, p.dialer(t, "clm-2", 1), deviceAt(key, addr))
	if _, err := dropped.Status(context.Background()); err != nil {
		t.Fatal(err)
	}
	// The CLM's half of the handshake ends first.
	if _, err := dial(t, p.dialer(t, "clm-1", 1), deviceAt(key, addr)).Status(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := dropped.Status(context.Background()); !errors.Is(err, enrol.ErrUnreachable) {
		t.Errorf("the channel of a CLM that is accepted no more answers: %v", err)
	}
}

// TestCredentialsOfTwoEpochs: a CLM that has come to a new epoch reaches
// devices on both sides of it, and those that moved without its knowledge.
func TestCredentialsOfTwoEpochs(t *testing.T) {
	e1, e2 := newPKG(t, 1), newPKG(t, 2)
	both := []*ibc.Params{e1.Params(), e2.Params()}
	d := e2.dialer(t, "clm-1", 1)
	d.Params, d.Earlier = both, []*Credential{e1.credential(t, "clm-1", 1)}
	k1, k2 := e1.key(t, ibc.RoleDevice, "plc-1", 1), e2.key(t, ibc.RoleDevice, "plc-1", 1)
	for _, tt := range []struct {
		name      string
		key       *ibc.PrivateKey
		known     []*ibc.Params
		inventory *ibc.PrivateKey
		floor     uint32 // epoch
		used      uint32 // epoch of the credential
	}{
		{"before", k1, both[:1], k1, 1, 1},
		{"moved, unknown to us", k2, both, k1, 1, 1},
		{"moved, known", k2, both, k2, 1, 2},
		{"settled by another CLM, unknown to us", k2, both[1:], k1, 2, 2},
		{"settled", k2, both[1:], k2, 2, 2},
	} {
		peers := newPeers("clm-1")
		peers.setFloor("clm-1", tt.floor, 1)
		self := &changingSelf{key: tt.key, known: tt.known}
		s := newServer(tt.key, peers, &fakeServices{status: sampleStatus(tt.key.Identity())})
		s.Self = self
		addr, stop := serve(t, s)
		link := dial(t, d, fleet.Device{Name: "plc-1", Identity: tt.inventory.Identity(), Address: addr})
		if _, err := link.Status(context.Background()); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if link.Identity() != tt.key.Identity() {
			t.Errorf("%s: the device proved %s", tt.name, link.Identity())
		}
		if got := self.settles(); len(got) != 1 || got[0][1].Epoch != tt.used {
			t.Errorf("%s: the handshakes were %v", tt.name, got)
		}
		stop()
	}
	peers := newPeers("clm-1")
	peers.setFloor("clm-1", 2, 9)
	addr, _ := serve(t, newServer(k2, peers, &fakeServices{}))
	if _, err := d.Dial(context.Background(), deviceAt(k2, addr)); !errors.Is(err, enrol.ErrIdentity) {
		t.Errorf("a device that accepts none: %v", err)
	}
}
