package coaplink

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// testClock is a clock that tests move.
type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newTestGate(t testing.TB, l Limits) (*gate, *testClock) {
	t.Helper()
	c := &testClock{now: time.Unix(1e9, 0)}
	return newGate(l.withDefaults(), func(a netip.Addr) bool { return a == trustedAddr.Addr() }, c.Now), c
}

var (
	strangerAddr = netip.MustParseAddrPort("192.0.2.1:1")
	trustedAddr  = netip.MustParseAddrPort("10.0.0.1:1")
)

// TestOldestFirstFlightGivesWay: a flood of unproved handshakes pushes out the
// oldest, never one whose address is proved and never one of a trusted source.
func TestOldestFirstFlightGivesWay(t *testing.T) {
	g, _ := newTestGate(t, Limits{FirstFlights: 3, FirstEvery: -1})
	var evicted []int
	enter := func(n int, a netip.AddrPort) *pass { return g.enter(a, func() { evicted = append(evicted, n) }) }
	enter(-1, trustedAddr)
	proved := enter(0, strangerAddr)
	if err := proved.proved(t.Context()); err != nil {
		t.Fatal(err)
	}
	passes := []*pass{enter(1, strangerAddr), enter(2, strangerAddr), enter(3, strangerAddr)}
	if len(evicted) != 0 {
		t.Fatalf("evicted %v at the limit", evicted)
	}
	passes[1].release()
	enter(4, strangerAddr)
	if len(evicted) != 0 {
		t.Fatalf("evicted %v though one had left", evicted)
	}
	enter(5, strangerAddr)
	enter(6, strangerAddr)
	if len(evicted) != 2 || evicted[0] != 1 || evicted[1] != 3 {
		t.Errorf("evicted %v, want the oldest two, 1 and 3", evicted)
	}
}

// TestFirstFlightsHaveARate: beyond a burst they are admitted one by one; each
// class, and whoever has proved his port, has a rate of his own.
func TestFirstFlightsHaveARate(t *testing.T) {
	g, clock := newTestGate(t, Limits{FirstFlights: 2, FirstEvery: time.Second})
	// enters counts how many of three get in.
	enters := func(a netip.AddrPort) (n int) {
		for range 3 {
			if g.enter(a, func() {}) != nil {
				n++
			}
		}
		return n
	}
	if n := enters(strangerAddr); n != 2 {
		t.Errorf("a burst of %d", n)
	}
	if n := enters(trustedAddr); n != 2 {
		t.Errorf("the CLM waits for strangers: %d", n)
	}
	elsewhere := netip.AddrPortFrom(strangerAddr.Addr(), 99)
	g.prove(elsewhere)
	if n, m := enters(elsewhere), enters(strangerAddr); n != 2 || m != 0 {
		t.Errorf("from a proved port %d, from others %d", n, m)
	}
	clock.advance(time.Second)
	if n := enters(strangerAddr); n != 1 {
		t.Errorf("after a second %d", n)
	}
	clock.advance(provenFor)
	if n, m := enters(elsewhere), enters(strangerAddr); n != 2 || m != 0 {
		t.Errorf("a proof counts for ever: %d and %d", n, m)
	}
	for i := range maxSources + 10 {
		g.prove(netip.AddrPortFrom(strangerAddr.Addr(), uint16(i)))
	}
	if len(g.proven) > maxSources {
		t.Errorf("%d proofs are remembered", len(g.proven))
	}
}

// TestHandshakesOfOneSource are limited once its address is proved.
func TestHandshakesOfOneSource(t *testing.T) {
	g, _ := newTestGate(t, Limits{SourceBurst: 2, SourceEvery: time.Hour})
	for i, want := range []error{nil, nil, errBusy} {
		p := g.enter(strangerAddr, func() {})
		if err := p.proved(t.Context()); !errors.Is(err, want) {
			t.Errorf("handshake %d: %v", i, err)
		}
		if err := p.proved(t.Context()); want == nil && err != nil {
			t.Errorf("handshake %d, its ClientHello repeated: %v", i, err)
		}
		p.release()
	}
	if len(g.slots) != 0 {
		t.Errorf("%d slots are held", len(g.slots))
	}
}

// TestLastSlotIsForTrustedSources: strangers fill their slot and wait in a
// bounded queue; a source from the bundle passes all the same.
func TestLastSlotIsForTrustedSources(t *testing.T) {
	g, _ := newTestGate(t, Limits{Waiting: 1, SourceBurst: 100})
	ctx, cancel := context.WithCancel(t.Context())
	first := g.enter(strangerAddr, nil)
	if err := first.proved(ctx); err != nil {
		t.Fatal(err)
	}
	waits := make(chan error, 1)
	second := g.enter(strangerAddr, nil)
	go func() { waits <- second.proved(ctx) }()
	eventually(t, "the second stranger waits", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.waiting == 1
	})
	third := g.enter(strangerAddr, nil)
	if err := third.proved(ctx); !errors.Is(err, errBusy) {
		t.Errorf("a third stranger: %v", err)
	}
	own := g.enter(trustedAddr, nil)
	if err := own.proved(ctx); err != nil {
		t.Errorf("the CLM: %v", err)
	}
	select {
	case err := <-waits:
		t.Fatalf("the second stranger did not wait: %v", err)
	default:
	}
	first.release()
	if err := <-waits; err != nil {
		t.Errorf("the second stranger, when the first is done: %v", err)
	}
	cancel()
	own.release()
	second.release()
	if len(g.slots)+len(g.strangers) != 0 {
		t.Errorf("%d and %d slots are still held", len(g.slots), len(g.strangers))
	}
}

// TestTrustedSourceBucket: the CLM may come back much faster than a stranger,
// but not without end either.
func TestTrustedSourceBucket(t *testing.T) {
	g, clock := newTestGate(t, Limits{SourceBurst: 2, SourceEvery: time.Second})
	a := strangerAddr.Addr()
	for i := range 2 * trustedShare {
		if err := g.admitSource(a, trusted); err != nil {
			t.Fatalf("handshake %d: %v", i+1, err)
		}
	}
	if err := g.admitSource(a, trusted); !errors.Is(err, errBusy) {
		t.Errorf("beyond the burst: %v", err)
	}
	clock.advance(time.Second / trustedShare)
	if err := g.admitSource(a, trusted); err != nil {
		t.Errorf("a share of the interval later: %v", err)
	}
}

// TestSourceBucket: one source gets a burst and then one handshake per
// interval; IPv6 sources count by their /64; other sources are not affected.
func TestSourceBucket(t *testing.T) {
	g, clock := newTestGate(t, Limits{SourceBurst: 2, SourceEvery: time.Second})
	a, b := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::ffff")
	for range 2 {
		if err := g.admitSource(a, stranger); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.admitSource(b, stranger); !errors.Is(err, errBusy) {
		t.Errorf("another address of the same network: %v", err)
	}
	if err := g.admitSource(strangerAddr.Addr(), stranger); err != nil {
		t.Errorf("another network: %v", err)
	}
	clock.advance(time.Second)
	if err := g.admitSource(a, stranger); err != nil {
		t.Errorf("a second later: %v", err)
	}
	if err := g.admitSource(a, stranger); !errors.Is(err, errBusy) {
		t.Errorf("twice in a second: %v", err)
	}
	clock.advance(-time.Hour) // a clock that is set back must not lock anybody out
	clock.advance(time.Second)
	if err := g.admitSource(a, stranger); !errors.Is(err, errBusy) {
		t.Logf("after the clock was set back: %v", err)
	}
	clock.advance(time.Second)
	if err := g.admitSource(a, stranger); err != nil {
		t.Errorf("after the clock was set back: %v", err)
	}
	for i := range maxSources + 10 {
		_ = g.admitSource(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), stranger)
	}
	if len(g.sources) > maxSources {
		t.Errorf("%d sources are remembered", len(g.sources))
	}
}

// TestPairingTokens: unknown certificates share the tokens of their class.
func TestPairingTokens(t *testing.T) {
	g, _ := newTestGate(t, Limits{PairBurst: 2, PairEvery: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for _, a := range []netip.AddrPort{strangerAddr, trustedAddr} {
		p := g.enter(a, nil)
		for range 2 {
			if err := p.pairing(ctx); err != nil {
				t.Errorf("%s: %v", a, err)
			}
		}
	}
	if err := g.enter(strangerAddr, nil).pairing(ctx); !errors.Is(err, errBusy) {
		t.Errorf("a third stranger: %v", err)
	}
}

// TestPairingTokenIsWaitedFor rather than refused: a busy device must not look
// like one that does not accept the CLM.
func TestPairingTokenIsWaitedFor(t *testing.T) {
	p := newPKG(t, 1)
	key := p.key(t, ibc.RoleDevice, "plc-1", 1)
	s := newServer(key, newPeers("clm-1"), &fakeServices{})
	s.Limits.PairBurst, s.Limits.PairEvery = 1, 200*time.Millisecond
	addr, _ := serve(t, s)
	for range 3 {
		dial(t, p.dialer(t, "clm-1", 1), deviceAt(key, addr))
	}
}

// TestNoTokenNoPairing: without a token the binding of an unknown certificate
// is not verified; a known certificate needs none.
func TestNoTokenNoPairing(t *testing.T) {
	p := newPKG(t, 1)
	key := p.key(t, ibc.RoleDevice, "plc-1", 1)
	peers := newPeers("clm-1")
	s := newServer(key, peers, &fakeServices{})
	s.Limits.PairBurst, s.Limits.PairEvery = 1, time.Hour
	addr, _ := serve(t, s)
	known := p.dialer(t, "clm-1", 1)
	for range 3 {
		dial(t, known, deviceAt(key, addr))
	}
	unknown := p.dialer(t, "clm-1", 1)
	unknown.Timeouts.Handshake = 500 * time.Millisecond
	if _, err := unknown.Dial(t.Context(), deviceAt(key, addr)); !errors.Is(err, enrol.ErrUnreachable) {
		t.Errorf("err = %v", err)
	}
	if n := peers.pairings(); n != 1 {
		t.Errorf("%d pairings with one token", n)
	}
}
