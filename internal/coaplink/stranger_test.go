package coaplink

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/plgd-dev/go-coap/v3/message/codes"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// aBoat looks like a lifeboat to the channel, and takes several blocks.
func aBoat() []byte {
	return append([]byte("edgeclm-lifeboat/1\n"), bytes.Repeat([]byte("x"), 5000)...)
}

func (f *fakeServices) lifeboats() []boat {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]boat(nil), f.boats...)
}

// asStranger opens a channel as DeliverLifeboat does.
func asStranger(t testing.TB, d *Dialer, key *ibc.PrivateKey, addr string) *link {
	t.Helper()
	credential, err := newStranger()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	l, err := d.dial(ctx, deviceAt(key, addr), credential)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// The device was taken over: it proves an identity of a PKG that we do not know,
// and accepts no CLM of ours. Its lifeboat arrives all the same, and whole.
func TestLifeboatOfAStranger(t *testing.T) {
	theirs, ours := newPKG(t, 1), newPKG(t, 1)
	key := theirs.key(t, ibc.RoleDevice, "plc-1", 1)
	services := &fakeServices{}
	addr, _ := serve(t, newServer(key, newPeers("clm-1"), services))
	d := ours.dialer(t, "clm-1", 1)
	ctx := context.Background()
	if _, err := d.Dial(ctx, deviceAt(key, addr)); !errors.Is(err, enrol.ErrIdentity) {
		t.Fatalf("an authenticated channel: %v", err)
	}
	if err := d.DeliverLifeboat(ctx, deviceAt(key, addr), aBoat()); err != nil {
		t.Fatal(err)
	}
	got := services.lifeboats()
	if len(got) != 1 || !bytes.Equal(got[0].data, aBoat()) || got[0].from != "a stranger at 127.0.0.1" {
		t.Errorf("%d lifeboats arrived", len(got))
	}
	services.aboard = func() error {
		return &enrol.DeviceError{Problem: enrol.ProblemConflict, Detail: "not later"}
	}
	var refusal *enrol.DeviceError
	if err := d.DeliverLifeboat(ctx, deviceAt(key, addr), aBoat()); !errors.As(err, &refusal) || refusal.Problem != enrol.ProblemConflict {
		t.Errorf("a refusal arrives as %v", err)
	}
	if n := services.count("status") + services.count("bundle"); n != 0 {
		t.Errorf("%d other requests were served", n)
	}
}

// TestAttackStrangerWantsMore: a peer without identity is let in for a lifeboat.
// It asks for everything else, and gets nothing, nor are blocks kept that do not
// begin as a lifeboat does.
func TestAttackStrangerWantsMore(t *testing.T) {
	p := newPKG(t, 1)
	key := p.key(t, ibc.RoleDevice, "plc-1", 1)
	services := &fakeServices{status: sampleStatus(key.Identity()), csr: []byte{0x30, 0}}
	addr, _ := serve(t, newServer(key, newPeers("clm-1"), services))
	l := asStranger(t, p.dialer(t, "clm-1", 1), key, addr)
	ctx := context.Background()
	_, statusErr := l.Status(ctx)
	_, csrErr := l.RequestCSR(ctx, enrol.CSRRequest{Enrolment: enrol.ID{1}})
	_, verifyErr := l.VerifyCertificate(ctx, enrol.VerifyRequest{Enrolment: enrol.ID{1}, Certificates: [][]byte{{1}}})
	_, coreErr := l.ask(ctx, codes.GET, pathCore, nil, formatLinks)
	for what, err := range map[string]error{
		"status": statusErr, "CSR": csrErr, "verification": verifyErr, "core": coreErr,
		"activation":    l.Activate(ctx, enrol.ID{1}, [32]byte{}, 0),
		"confirmation":  l.Confirm(ctx, enrol.ID{1}, [32]byte{}),
		"rollback":      l.Rollback(ctx, enrol.ID{1}, [32]byte{}),
		"bundle":        l.DeliverBundle(ctx, []byte("age-encryption.org/v1")),
		"large bundle":  l.DeliverBundle(ctx, bytes.Repeat([]byte("x"), 10_000)),
		"anchors":       l.DeliverAnchors(ctx, enrol.AnchorChange{Statement: []byte("x")}),
		"boat, anchors": l.DeliverAnchors(ctx, enrol.AnchorChange{Statement: aBoat()}),
	} {
		var refusal *enrol.DeviceError
		if !errors.As(err, &refusal) || refusal.Problem != enrol.ProblemForbidden {
			t.Errorf("%s: %v", what, err)
		}
	}
	services.mu.Lock()
	defer services.mu.Unlock()
	if len(services.calls) > 0 || len(services.boats) > 0 {
		t.Errorf("served: %v and %d lifeboats", services.calls, len(services.boats))
	}
}

// TestAttackOldSessionOutlivesLifeboat: the thief of the master secret holds a
// channel to the device when its lifeboat comes, over which he proved an
// identity that has the same name under the new root. He is thrown out, and his
// handshake that is under way leads to nothing.
func TestAttackOldSessionOutlivesLifeboat(t *testing.T) {
	old, next := newPKG(t, 1), newPKG(t, 1)
	before, after := old.key(t, ibc.RoleDevice, "plc-1", 1), next.key(t, ibc.RoleDevice, "plc-1", 1)
	self := &changingSelf{key: before, known: []*ibc.Params{old.Params()}}
	services := &fakeServices{status: sampleStatus(before.Identity()), csr: []byte{0x30, 0}}
	services.aboard = func() error {
		self.mu.Lock()
		self.root = 1
		self.mu.Unlock()
		self.become(after, next.Params())
		return nil
	}
	s := newServer(before, newPeers("clm-1"), services)
	s.Self = self
	addr, _ := serve(t, s)
	ctx := context.Background()
	thief := dial(t, old.dialer(t, "clm-1", 1), deviceAt(before, addr))
	ours := dial(t, old.dialer(t, "clm-1", 1), deviceAt(before, addr))
	if _, err := thief.Status(ctx); err != nil {
		t.Fatal(err)
	}
	if err := ours.DeliverBundle(ctx, aBoat()); err != nil {
		t.Fatalf("a lifeboat over an authenticated channel: %v", err)
	}
	served := services.count("status")
	if _, err := thief.Status(ctx); err == nil {
		t.Error("the thief's channel is served")
	}
	_, err := ours.Status(ctx)
	wantReplaced(t, "the channel of the old root", err)
	wantReplaced(t, "a bundle on it", ours.DeliverBundle(ctx, []byte("age")))
	if services.count("status") != served || services.count("bundle") != 0 {
		t.Error("a channel of the old root was served")
	}
	if err := ours.DeliverBundle(ctx, aBoat()); err != nil {
		t.Errorf("the lifeboat again: %v", err)
	}
	if _, err := old.dialer(t, "clm-1", 9).Dial(ctx, deviceAt(before, addr)); !errors.Is(err, enrol.ErrIdentity) {
		t.Errorf("a CLM of the old root: %v", err)
	}
	knows := old.dialer(t, "clm-1", 9) // and knows the new root
	knows.Params = []*ibc.Params{next.Params()}
	var refused *refusedCredential
	if _, err := knows.Dial(ctx, deviceAt(after, addr)); !errors.As(err, &refused) {
		t.Errorf("a CLM of the old root that knows the new one: %v", err)
	}
	if link := dial(t, next.dialer(t, "clm-1", 1), deviceAt(after, addr)); link.Identity() != after.Identity() {
		t.Error(link.Identity())
	}
}

// TestAttackFloodsOfLifeboats: strangers bring what looks like lifeboats, as
// fast as they can and from many channels. What is verified of it is two, and
// one more in each interval; strangers have few sessions, and none of a CLM's.
func TestAttackFloodsOfLifeboats(t *testing.T) {
	p := newPKG(t, 1)
	key := p.key(t, ibc.RoleDevice, "plc-1", 1)
	services := &fakeServices{status: sampleStatus(key.Identity())}
	services.aboard = func() error { return &enrol.DeviceError{Problem: enrol.ProblemForbidden, Detail: "no"} }
	s := newServer(key, newPeers("clm-1"), services)
	s.Limits.BoatEvery = time.Hour
	s.Limits.Sessions = 1
	addr, _ := serve(t, s)
	ctx := context.Background()
	d := p.dialer(t, "clm-1", 1)
	clm := dial(t, d, deviceAt(key, addr))
	first := asStranger(t, d, key, addr)
	for range 2 {
		var refusal *enrol.DeviceError
		if err := first.DeliverBundle(ctx, aBoat()); !errors.As(err, &refusal) {
			t.Fatal(err)
		}
	}
	short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if err := first.DeliverBundle(short, aBoat()); err == nil {
		t.Error("a third lifeboat was answered")
	}
	second := asStranger(t, d, key, addr) // of the same source, which has one
	if err := first.DeliverBundle(ctx, aBoat()); !errors.Is(err, enrol.ErrUnreachable) {
		t.Errorf("the source's earlier channel: %v", err)
	}
	_ = second
	if n := len(services.lifeboats()); n != 2 {
		t.Errorf("%d lifeboats were verified", n)
	}
	if _, err := clm.Status(ctx); err != nil {
		t.Errorf("the CLM's session: %v", err)
	}
}

// The places of strangers: the oldest gives way when it has had its time.
func TestPlacesOfStrangers(t *testing.T) {
	var now time.Duration
	begin := time.Now()
	v := &serving{
		Server: &Server{Now: func() time.Time { return begin.Add(now) }, Self: fixedSelf{newPKG(t, 1).key(t, ibc.RoleDevice, "plc-1", 1)}},
		limits: Limits{}.withDefaults(), begun: begin, opened: make(chan struct{}, 1), sessions: map[*session]struct{}{},
	}
	closed := map[string]bool{}
	come := func(from string) error {
		s := &session{server: v, stranger: true, source: netip.AddrPortFrom(netip.MustParseAddr(from), 1), begun: v.uptime()}
		s.close = func() { closed[from] = true; delete(v.sessions, s) }
		return v.admitStranger(s)
	}
	for _, from := range []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"} {
		if err := come(from); err != nil {
			t.Fatal(err)
		}
		now += time.Second
	}
	if err := come("10.0.0.5"); !errors.Is(err, errBusy) {
		t.Errorf("a fifth: %v", err)
	}
	if err := come("10.0.0.2"); err != nil || !closed["10.0.0.2"] {
		t.Errorf("one again: %v", err)
	}
	now += v.limits.StrangerFor
	if err := come("10.0.0.5"); err != nil || !closed["10.0.0.1"] || closed["10.0.0.3"] {
		t.Errorf("a fifth, later: %v, %v", err, closed)
	}
	for s := range v.sessions {
		now = s.begun + v.limits.StrangerEnd + 1
		s.expire()
	}
	if len(v.sessions) > 0 {
		t.Errorf("%d strangers stay for good", len(v.sessions))
	}
}

// A device of an earlier release is not to be blamed for it.
func TestStrangerIsRefused(t *testing.T) {
	e := &refusedCredential{device: ibc.Identity{Role: ibc.RoleDevice, Name: "plc-1", Epoch: 1, Generation: 1}, address: net.JoinHostPort("10.0.0.1", "5684")}
	if !errors.Is(e, enrol.ErrIdentity) || !strings.Contains(e.Error(), "earlier release") {
		t.Error(e)
	}
}
