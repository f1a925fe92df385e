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
	FirstFlights int // handshakes that have not proved their address; the oldest gives way. 64
	Waiting      int // handshakes that wait for a slot. 16
	Slots        int // handshakes at once, one of them for trusted sources alone. 2
	Sessions     int // authenticated sessions; the idlest gives way. 16

	SourceBurst int           // handshakes from one source. 10
	SourceEvery time.Duration // and one more in this time. 1 s
	PairBurst   int           // bindings of unknown certificates that are verified. 2
	PairEvery   time.Duration // and one more in this time. 2 s

	FirstFlight time.Duration // until an address is proved. 10 s
	Handshake   time.Duration // a slot is held. 15 s
	Idle        time.Duration // a session lives without a message. 10 min
}

func (l Limits) withDefaults() Limits {
	l.FirstFlights = orDefault(l.FirstFlights, 64)
	l.Waiting = orDefault(l.Waiting, 16)
	l.Slots = max(orDefault(l.Slots, 2), 2)
	l.Sessions = orDefault(l.Sessions, 16)
	l.SourceBurst = orDefault(l.SourceBurst, 10)
	l.SourceEvery = orDefault(l.SourceEvery, time.Second)
	l.PairBurst = orDefault(l.PairBurst, 2)
	l.PairEvery = orDefault(l.PairEvery, 2*time.Second)
	l.FirstFlight = orDefault(l.FirstFlight, 10*time.Second)
	l.Handshake = orDefault(l.Handshake, 15*time.Second)
	l.Idle = orDefault(l.Idle, 10*time.Minute)
	return l
}

// maxSources bounds the table of source buckets.
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
	trusted []netip.Prefix
	now     func() time.Time

	mu       sync.Mutex
	first    [2]*list.List // *attempt, oldest first; by class
	waiting  int
	sources  map[netip.Prefix]*bucket
	pairings [2]bucket // by class

	slots     chan struct{} // all slots
	strangers chan struct{} // those that strangers may hold
}

// The two classes of sources.
const (
	stranger = 0
	trusted  = 1
)

func newGate(limits Limits, prefixes []netip.Prefix, now func() time.Time) *gate {
	return &gate{
		limits: limits, trusted: prefixes, now: now,
		first: [2]*list.List{list.New(), list.New()}, sources: map[netip.Prefix]*bucket{},
		slots: make(chan struct{}, limits.Slots), strangers: make(chan struct{}, limits.Slots-1),
	}
}

func (g *gate) class(a netip.Addr) int {
	for _, p := range g.trusted {
		if p.Contains(a) {
			return trusted
		}
	}
	return stranger
}

// pass is one handshake's way through the gate.
type pass struct {
	gate   *gate
	source netip.Addr
	class  int
	evict  func()

	first *list.Element // guarded by gate.mu; nil once the address is proved
	held  bool          // a slot
}

// enter admits a first flight; at the limit the oldest unproved one of its
// class gives way, for an honest one is answered within a round trip.
func (g *gate) enter(source netip.Addr, evict func()) *pass {
	p := &pass{gate: g, source: source, class: g.class(source), evict: evict}
	g.mu.Lock()
	var victim *pass
	if l := g.first[p.class]; l.Len() >= g.limits.FirstFlights {
		victim, _ = l.Remove(l.Front()).(*pass)
		victim.first = nil
	}
	p.first = g.first[p.class].PushBack(p)
	g.mu.Unlock()
	if victim != nil {
		victim.evict()
	}
	return p
}

// proved takes note of a valid cookie and waits for a slot.
func (p *pass) proved(ctx context.Context) error {
	if p.held {
		return nil
	}
	p.leave()
	if err := p.gate.admitSource(p.source); err != nil {
		return err
	}
	return p.acquire(ctx)
}

func (p *pass) leave() {
	g := p.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.first != nil {
		g.first[p.class].Remove(p.first)
		p.first = nil
	}
}

// admitSource takes a token of the source's bucket.
func (g *gate) admitSource(a netip.Addr) error {
	bits := 32
	if a.Is6() {
		bits = 64
	}
	prefix, err := a.Prefix(bits)
	if err != nil {
		return fmt.Errorf("source %s: %w", a, err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.sources[prefix]
	if b == nil {
		if len(g.sources) >= maxSources {
			g.forgetSource()
		}
		b = new(bucket)
		g.sources[prefix] = b
	}
	if wait := b.take(g.now(), g.limits.SourceBurst, g.limits.SourceEvery); wait > 0 {
		return fmt.Errorf("%w from %s: one every %v", errBusy, prefix, g.limits.SourceEvery)
	}
	return nil
}

// forgetSource drops the bucket that has rested longest.
func (g *gate) forgetSource() {
	var oldest netip.Prefix
	var at time.Time
	for p, b := range g.sources {
		if at.IsZero() || b.at.Before(at) {
			oldest, at = p, b.at
		}
	}
	delete(g.sources, oldest)
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
	for {
		g.mu.Lock()
		wait := g.pairings[p.class].take(g.now(), g.limits.PairBurst, g.limits.PairEvery)
		g.mu.Unlock()
		if wait == 0 {
			return nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("%w of unknown peers: %w", errBusy, ctx.Err())
		}
	}
}
