package coaplink

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// Limits bound what peers may cost a device; zero values mean the defaults.
type Limits struct {
	FirstFlights int           // handshakes that have not proved their address; the oldest gives way. 64
	FirstEvery   time.Duration // beyond those, one more in this time. 10 ms
	Waiting      int           // handshakes that wait for a slot. 16
	Slots        int           // handshakes at once, one of them for trusted sources alone. 2
	Sessions     int           // authenticated sessions; the idlest gives way. 16

	SourceBurst int           // handshakes from one source, ten times as many from a trusted one. 10
	SourceEvery time.Duration // and one more in this time. 1 s
	PairBurst   int           // bindings of unknown certificates that are verified. 2
	PairEvery   time.Duration // and one more in this time. 2 s
	BoatBurst   int           // lifeboats that are verified. 2
	BoatEvery   time.Duration // and one more in this time. 2 s
	Strangers   int           // sessions of strangers at once, one from one source. 4
	StrangerFor time.Duration // such a session gives way to another only after this. 30 s
	StrangerEnd time.Duration // and ends after this. 3 min

	FirstFlight time.Duration // until an address is proved. 10 s
	Handshake   time.Duration // a slot is held. 15 s
	Idle        time.Duration // a session lives without a message. 10 min
}

func (l Limits) withDefaults() Limits {
	l.FirstFlights = orDefault(l.FirstFlights, 64)
	l.FirstEvery = orDefault(l.FirstEvery, 10*time.Millisecond)
	l.Waiting = orDefault(l.Waiting, 16)
	l.Slots = max(orDefault(l.Slots, 2), 2)
	l.Sessions = orDefault(l.Sessions, 16)
	l.SourceBurst = orDefault(l.SourceBurst, 10)
	l.SourceEvery = orDefault(l.SourceEvery, time.Second)
	l.PairBurst = orDefault(l.PairBurst, 2)
	l.PairEvery = orDefault(l.PairEvery, 2*time.Second)
	l.BoatBurst = orDefault(l.BoatBurst, 2)
	l.BoatEvery = orDefault(l.BoatEvery, 2*time.Second)
	l.Strangers = orDefault(l.Strangers, 4)
	l.StrangerFor = orDefault(l.StrangerFor, 30*time.Second)
	l.StrangerEnd = orDefault(l.StrangerEnd, 3*time.Minute)
	l.FirstFlight = orDefault(l.FirstFlight, 10*time.Second)
	l.Handshake = orDefault(l.Handshake, 15*time.Second)
	l.Idle = orDefault(l.Idle, 10*time.Minute)
	return l
}

// trustedShare is how many times more handshakes a trusted source may make than
// a stranger.
const trustedShare = 10

// maxSources bounds the tables of sources.
const maxSources = 1024

// errBusy is wrapped when a limit and not the peer is the reason.
var errBusy = errors.New("too many handshakes")

// bucket is a token bucket.
type bucket struct {
	tokens float64
	at     time.Time
}

// take takes a token, or says how long it takes until there is one.
func (b *bucket) take(now time.Time, burst int, every time.Duration) (wait time.Duration) {
	if b.at.IsZero() {
		b.tokens = float64(burst)
	} else if d := now.Sub(b.at); d > 0 {
		b.tokens = min(float64(burst), b.tokens+float64(d)/float64(every))
	}
	b.at = now
	if b.tokens < 1 {
		return time.Duration((1 - b.tokens) * float64(every))
	}
	b.tokens--
	return 0
}

// gate is what stands between strangers and the device's processor and memory.
// Sources that the bundle names as the CLM's own have their own share of
// everything.
type gate struct {
	limits  Limits
	trusted func(netip.Addr) bool // nil: nobody
	now     func() time.Time

	mu       sync.Mutex
	first    [queues]queue
	waiting  int
	sources  map[netip.Prefix]*bucket
	proven   map[netip.AddrPort]time.Time // until when
	pairings [2]bucket                    // by class
	boats    [2]bucket                    // lifeboats of strangers and of CLMs

	slots     chan struct{} // all slots
	strangers chan struct{} // those that strangers may hold
}

// The two classes of sources, and a third queue of first flights for sources
// that proved their address while their own was overrun.
const (
	stranger = 0
	trusted  = 1
	proven   = 2
	queues   = 3
)

// provenFor is how long a proof of address counts.
const provenFor = time.Minute

// queue holds first flights, oldest first, and limits how fast they come.
type queue struct {
	passes list.List // of *pass
	rate   bucket
}

func newGate(limits Limits, trusted func(netip.Addr) bool, now func() time.Time) *gate {
	return &gate{
		limits: limits, trusted: trusted, now: now,
		sources: map[netip.Prefix]*bucket{}, proven: map[netip.AddrPort]time.Time{},
		slots: make(chan struct{}, limits.Slots), strangers: make(chan struct{}, limits.Slots-1),
	}
}

func (g *gate) class(a netip.Addr) int {
	if g.trusted != nil && g.trusted(a) {
		return trusted
	}
	return stranger
}

// network is what counts as one source: an IPv4 address, an IPv6 /64.
func network(a netip.Addr) netip.Prefix {
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// pass is one handshake's way through the gate.
type pass struct {
	gate   *gate
	source netip.AddrPort
	class  int
	evict  func()

	first *list.Element // guarded by gate.mu; nil once the address is proved
	queue *queue
	held  bool // a slot
}

// enter admits a first flight, which costs memory before anything is known of
// its sender, or returns nil if they come too fast. In a full queue the oldest
// gives way: an honest one is answered within a round trip.
func (g *gate) enter(source netip.AddrPort, evict func()) *pass {
	p := &pass{gate: g, source: source, class: g.class(source.Addr()), evict: evict}
	g.mu.Lock()
	which := p.class
	if until, ok := g.proven[source]; ok && g.now().Before(until) {
		which = proven
	}
	p.queue = &g.first[which]
	if p.queue.rate.take(g.now(), g.limits.FirstFlights, g.limits.FirstEvery) > 0 {
		g.mu.Unlock()
		return nil
	}
	var victim *pass
	if l := &p.queue.passes; l.Len() >= g.limits.FirstFlights {
		victim, _ = l.Remove(l.Front()).(*pass)
		victim.first = nil
	}
	p.first = p.queue.passes.PushBack(p)
	g.mu.Unlock()
	if victim != nil {
		victim.evict()
	}
	return p
}

// prove takes note that a source receives what is sent to it. Its next first
// flight does not compete with forged ones.
func (g *gate) prove(source netip.AddrPort) {
	g.mu.Lock()
	defer g.mu.Unlock()
	makeRoom(g.proven)
	g.proven[source] = g.now().Add(provenFor)
}

// makeRoom drops any entry of a full table.
func makeRoom[K comparable, V any](table map[K]V) {
	if len(table) < maxSources {
		return
	}
	for k := range table {
		delete(table, k)
		return
	}
}

// proved takes note of a valid cookie and waits for a slot.
func (p *pass) proved(ctx context.Context) error {
	if p.held {
		return nil
	}
	p.leave()
	if err := p.gate.admitSource(p.source.Addr(), p.class); err != nil {
		return err
	}
	return p.acquire(ctx)
}

func (p *pass) leave() {
	g := p.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.first != nil {
		p.queue.passes.Remove(p.first)
		p.first = nil
	}
}

// admitSource takes a token of the source's bucket.
func (g *gate) admitSource(a netip.Addr, class int) error {
	source := network(a)
	burst, every := g.limits.SourceBurst, g.limits.SourceEvery
	if class == trusted {
		// A CLM that enrols many times in a row; the slots bound what it costs.
		burst, every = trustedShare*burst, every/trustedShare
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.sources[source]
	if b == nil {
		makeRoom(g.sources)
		b = new(bucket)
		g.sources[source] = b
	}
	if wait := b.take(g.now(), burst, every); wait > 0 {
		return fmt.Errorf("%w from %s: one every %v", errBusy, source, every)
	}
	return nil
}

// acquire waits for a handshake slot. Strangers never hold the last one.
func (p *pass) acquire(ctx context.Context) error {
	g := p.gate
	g.mu.Lock()
	if g.waiting >= g.limits.Waiting && p.class == stranger {
		g.mu.Unlock()
		return fmt.Errorf("%w: %d are waiting", errBusy, g.limits.Waiting)
	}
	g.waiting++
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		g.waiting--
		g.mu.Unlock()
	}()
	if p.class == stranger {
		select {
		case g.strangers <- struct{}{}:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", errBusy, ctx.Err())
		}
	}
	select {
	case g.slots <- struct{}{}:
		p.held = true
		return nil
	case <-ctx.Done():
		if p.class == stranger {
			<-g.strangers
		}
		return fmt.Errorf("%w: %w", errBusy, ctx.Err())
	}
}

// release gives back whatever the handshake holds.
func (p *pass) release() {
	p.leave()
	if !p.held {
		return
	}
	p.held = false
	<-p.gate.slots
	if p.class == stranger {
		<-p.gate.strangers
	}
}

// pairing waits for the right to verify the binding of an unknown certificate.
func (p *pass) pairing(ctx context.Context) error {
	g := p.gate
	if err := g.wait(ctx, &g.pairings[p.class], g.limits.PairBurst, g.limits.PairEvery); err != nil {
		return fmt.Errorf("%w of unknown peers: %w", errBusy, err)
	}
	return nil
}

// lifeboat waits for the right to verify a lifeboat.
func (g *gate) lifeboat(ctx context.Context, class int) error {
	return g.wait(ctx, &g.boats[class], g.limits.BoatBurst, g.limits.BoatEvery)
}

// wait waits for a token.
func (g *gate) wait(ctx context.Context, b *bucket, burst int, every time.Duration) error {
	for {
		g.mu.Lock()
		wait := b.take(g.now(), burst, every)
		g.mu.Unlock()
		if wait == 0 {
			return nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
