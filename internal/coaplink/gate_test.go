package coaplink

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/coaplink/lossy"
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
	return newGate(l.withDefaults(), []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32")}, c.Now), c
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
	enters := func(a netip.AddrPort) bool { return g.enter(a, func() {}) != nil }
	if !enters(strangerAddr) || !enters(strangerAddr) || enters(strangerAddr) {
		t.Error("not two of three")
	}
	if !enters(trustedAddr) {
		t.Error("the CLM waits for strangers")
	}
	elsewhere := netip.AddrPortFrom(strangerAddr.Addr(), 99)
	g.prove(elsewhere)
	if !enters(elsewhere) || enters(strangerAddr) {
		t.Error("a proved port counts as another one")
	}
	clock.advance(time.Second)
	if !enters(strangerAddr) || enters(strangerAddr) {
		t.Error("not one a second")
	}
	clock.advance(provenFor)
	if !enters(elsewhere) || !enters(elsewhere) || enters(elsewhere) {
		t.Error("a proof counts for ever")
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

// TestSourceBucket: one source gets a burst and then one handshake per
// interval; IPv6 sources count by their /64; other sources are not affected.
func TestSourceBucket(t *testing.T) {
	g, clock := newTestGate(t, Limits{SourceBurst: 2, SourceEvery: time.Second})
	a, b := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::ffff")
	for range 2 {
		if err := g.admitSource(a); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.admitSource(b); !errors.Is(err, errBusy) {
		t.Errorf("another address of the same network: %v", err)
	}
	if err := g.admitSource(strangerAddr.Addr()); err != nil {
		t.Errorf("another network: %v", err)
	}
	clock.advance(time.Second)
	if err := g.admitSource(a); err != nil {
		t.Errorf("a second later: %v", err)
	}
	if err := g.admitSource(a); !errors.Is(err, errBusy) {
		t.Errorf("twice in a second: %v", err)
	}
	clock.advance(-time.Hour) // a clock that is set back must not lock anybody out
	clock.advance(time.Second)
	if err := g.admitSource(a); !errors.Is(err, errBusy) {
		t.Logf("after the clock was set back: %v", err)
	}
	clock.advance(time.Second)
	if err := g.admitSource(a); err != nil {
		t.Errorf("after the clock was set back: %v", err)
	}
	for i := range maxSources + 10 {
		_ = g.admitSource(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}))
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

// firstFlight returns a ClientHello as the CLM sends it.
func firstFlight(t testing.TB, d *Dialer, device *ibc.PrivateKey) []byte {
	t.Helper()
	sink, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sink.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if link, err := d.Dial(ctx, deviceAt(device, sink.LocalAddr().String())); err == nil {
			_ = link.Close()
		}
	}()
	b := make([]byte, 2048)
	n, _, err := sink.ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	<-done
	return b[:n]
}

// flood sends first flights, about so many per second, each from a forged
// address, until the context ends. It returns how many.
func flood(ctx context.Context, t testing.TB, addr string, hello []byte, rate int) (sent int) {
	t.Helper()
	to, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		t.Error(err)
		return 0
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return sent
		case <-tick.C:
		}
		for range max(1, rate/1000) {
			from := net.IPv4(127, byte(1+sent%200), byte(sent>>8), byte(1+sent%250))
			c, err := net.DialUDP("udp", &net.UDPAddr{IP: from}, to)
			if err != nil {
				t.Error(err)
				return sent
			}
			_, _ = c.Write(hello)
			_ = c.Close()
			sent++
		}
	}
}

// TestFloodOfFirstFlights: somebody opens handshakes with forged addresses and
// goes on with none. The device serves its CLM meanwhile, trusted source or
// not, and what the flood costs stays within the limit.
func TestFloodOfFirstFlights(t *testing.T) {
	for name, trust := range map[string][]netip.Prefix{
		"from anywhere":                nil,
		"in the name of the CLM's own": {netip.MustParsePrefix("127.0.0.0/8")},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPKG(t, 1)
			key := p.key(t, ibc.RoleDevice, "plc-1", 1)
			d := p.dialer(t, "clm-1", 1)
			hello := firstFlight(t, d, key)
			s := newServer(key, newPeers("clm-1"), &fakeServices{status: sampleStatus(key.Identity())})
			s.Limits.FirstFlights = 16
			s.Trusted = trust
			addr, stop := serve(t, s)
			before := runtime.NumGoroutine()
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			wg.Go(func() { flood(ctx, t, addr, hello, 2000) })
			time.Sleep(100 * time.Millisecond)
			for range 3 {
				link := dial(t, d, deviceAt(key, addr))
				if _, err := link.Status(ctx); err != nil {
					t.Error(err)
				}
				_ = link.Close()
			}
			// Four or five for each handshake, and evicted ones on their way out.
			if most := runtime.NumGoroutine() - before; most > 16*10 {
				t.Errorf("%d goroutines during the flood", most)
			}
			cancel()
			wg.Wait()
			stop()
		})
	}
}

// TestEvictedHandshakeBeginsAnew: the device answers the second half of a
// handshake that it has dropped with an alert, so that the CLM begins anew at
// once instead of waiting for a timeout.
func TestEvictedHandshakeBeginsAnew(t *testing.T) {
	p := newPKG(t, 1)
	key := p.key(t, ibc.RoleDevice, "plc-1", 1)
	addr, stop := serve(t, newServer(key, newPeers("clm-1"), &fakeServices{}))
	proxy := lossy.New(t, addr, lossy.Faults{})
	// The device restarts between the two halves: its first half is lost.
	restarted := make(chan string)
	var once sync.Once
	proxy.Observe(func(toUpstream bool, data []byte) {
		if h, ok := parseHello(data); ok && toUpstream && h.sequence == 1 {
			once.Do(func() {
				stop()
				conn, err := net.ListenPacket("udp", addr)
				if err != nil {
					t.Error(err)
				}
				s := newServer(key, newPeers("clm-1"), &fakeServices{})
				ctx, cancel := context.WithCancel(context.Background())
				t.Cleanup(cancel)
				go func() { _ = s.Serve(ctx, conn) }()
				close(restarted)
			})
		}
	})
	begun := time.Now()
	link := dial(t, p.dialer(t, "clm-1", 1), deviceAt(key, proxy.Addr()))
	<-restarted
	if link.Identity() != key.Identity() {
		t.Errorf("reached %v", link.Identity())
	}
	t.Logf("after %v", time.Since(begun))
}

// TestOverrunGateKeepsNothing: when first flights come too fast, their senders
// prove their address without the device keeping anything, and the CLM gets in.
func TestOverrunGateKeepsNothing(t *testing.T) {
	p := newPKG(t, 1)
	key := p.key(t, ibc.RoleDevice, "plc-1", 1)
	d := p.dialer(t, "clm-1", 1)
	hello := firstFlight(t, d, key)
	s := newServer(key, newPeers("clm-1"), &fakeServices{status: sampleStatus(key.Identity())})
	s.Limits.FirstFlights, s.Limits.FirstEvery = 1, time.Hour
	addr, _ := serve(t, s)
	c, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write(hello); err != nil { // takes the only token
		t.Fatal(err)
	}
	answer := make([]byte, 2048)
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(answer); err != nil {
		t.Fatal(err)
	}
	link := dial(t, d, deviceAt(key, addr))
	if _, err := link.Status(t.Context()); err != nil {
		t.Error(err)
	}

	again, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	if _, err := again.Write(hello); err != nil {
		t.Fatal(err)
	}
	_ = again.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, err := again.Read(answer)
	if err != nil {
		t.Fatal(err)
	}
	if answer[0] != recordHandshake || answer[recordHeader] != messageHelloVerify || n >= len(hello) {
		t.Errorf("%d bytes answered with %d: %x", len(hello), n, answer[:n])
	}
}

// TestCookies: a cookie is worth something to the address and the ClientHello
// that it was made for, and only there.
func TestCookies(t *testing.T) {
	c, err := newCookies(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := newPKG(t, 1)
	raw := firstFlight(t, p.dialer(t, "clm-1", 1), p.key(t, ibc.RoleDevice, "plc-1", 1))
	h, ok := parseHello(raw)
	if !ok || h.sequence != 0 || len(h.cookie) != 0 {
		t.Fatalf("parsed %+v, %v", h, ok)
	}
	request := c.verifyRequest(strangerAddr, h)
	h.cookie = request[len(request)-cookieSize:]
	if !c.valid(strangerAddr, h) {
		t.Error("refused")
	}
	if c.valid(netip.AddrPortFrom(strangerAddr.Addr(), 2), h) || c.valid(trustedAddr, h) {
		t.Error("accepted from elsewhere")
	}
	h.random = bytes.Repeat([]byte{1}, randomSize)
	if c.valid(strangerAddr, h) {
		t.Error("accepted for another ClientHello")
	}
	h.cookie = nil
	if c.valid(strangerAddr, h) {
		t.Error("accepted without a cookie")
	}
}
