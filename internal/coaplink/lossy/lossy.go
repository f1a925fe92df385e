// Package lossy is a UDP proxy for tests that loses, repeats and reorders
// datagrams. What happens to the nth datagram of a flow depends on the seed
// alone.
package lossy

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Faults are probabilities from 0 to 1, for each datagram and both directions.
type Faults struct {
	Loss      float64
	Duplicate float64
	Reorder   float64 // the datagram is held back for up to MaxDelay
	MaxDelay  time.Duration
	Seed      uint64
}

// Proxy stands between clients and one upstream address.
type Proxy struct {
	faults   Faults
	upstream *net.UDPAddr
	conn     *net.UDPConn

	mu     sync.Mutex
	flows  map[netip.AddrPort]*net.UDPConn
	opened uint64
	closed bool
	wg     sync.WaitGroup

	forwarded, lost, repeated, delayed atomic.Int64
	severed                            atomic.Bool
	onDatagram                         atomic.Pointer[func(toUpstream bool, data []byte)]
}

// Start proxies to upstream and loses datagrams at a rate in both directions.
// It returns the address to send to; the proxy ends with the test.
func Start(t testing.TB, upstream string, rate float64, seed uint64) (addr string) {
	t.Helper()
	return New(t, upstream, Faults{Loss: rate, Seed: seed}).Addr()
}

// New starts a proxy with any faults; it ends with the test.
func New(t testing.TB, upstream string, f Faults) *Proxy {
	t.Helper()
	to, err := net.ResolveUDPAddr("udp", upstream)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	if f.MaxDelay == 0 {
		f.MaxDelay = 50 * time.Millisecond
	}
	p := &Proxy{faults: f, upstream: to, conn: conn, flows: map[netip.AddrPort]*net.UDPConn{}}
	p.wg.Go(p.run)
	t.Cleanup(p.close)
	return p
}

// Addr is where clients send to.
func (p *Proxy) Addr() string { return p.conn.LocalAddr().String() }

// Observe calls f for every datagram that arrives at the proxy, lost or not.
func (p *Proxy) Observe(f func(toUpstream bool, data []byte)) { p.onDatagram.Store(&f) }

// Counts says what has become of the datagrams so far.
func (p *Proxy) Counts() (forwarded, lost, repeated, delayed int64) {
	return p.forwarded.Load(), p.lost.Load(), p.repeated.Load(), p.delayed.Load()
}

// Sever makes the proxy lose everything from now on, or no longer.
func (p *Proxy) Sever(on bool) { p.severed.Store(on) }

// Rebind gives every client another port towards upstream, as a network address
// translator does that has forgotten them.
func (p *Proxy) Rebind() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.flows {
		_ = c.Close()
	}
	clear(p.flows)
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed = true
	for _, c := range p.flows {
		_ = c.Close()
	}
	p.mu.Unlock()
	_ = p.conn.Close()
	p.wg.Wait()
}

func (p *Proxy) run() {
	buffer := make([]byte, 64<<10)
	upward := map[netip.AddrPort]*rand.Rand{}
	for {
		n, from, err := p.conn.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return
		}
		upstream := p.flow(from)
		if upstream == nil {
			continue
		}
		if upward[from] == nil {
			upward[from] = p.dice(uint64(len(upward)), 1)
		}
		p.pass(upward[from], true, buffer[:n], func(data []byte) { _, _ = upstream.Write(data) })
	}
}

// flow returns the socket towards upstream that stands for a client.
func (p *Proxy) flow(client netip.AddrPort) *net.UDPConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c, ok := p.flows[client]; ok || p.closed {
		return c
	}
	c, err := net.DialUDP("udp", nil, p.upstream)
	if err != nil {
		return nil
	}
	p.opened++
	dice := p.dice(p.opened, 2)
	p.flows[client] = c
	p.wg.Go(func() {
		buffer := make([]byte, 64<<10)
		for {
			n, err := c.Read(buffer)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				time.Sleep(time.Millisecond) // port unreachable
				continue
			}
			p.pass(dice, false, buffer[:n], func(data []byte) { _, _ = p.conn.WriteToUDPAddrPort(data, client) })
		}
	})
	return c
}

func (p *Proxy) dice(flow, direction uint64) *rand.Rand {
	return rand.New(rand.NewPCG(p.faults.Seed, flow<<8|direction)) //nolint:gosec // faults, not secrets
}

// pass decides about one datagram. It draws the same number of dice for each.
func (p *Proxy) pass(dice *rand.Rand, toUpstream bool, data []byte, send func([]byte)) {
	lose, repeat, hold, delay := dice.Float64(), dice.Float64(), dice.Float64(), dice.Float64()
	if f := p.onDatagram.Load(); f != nil {
		(*f)(toUpstream, append([]byte(nil), data...))
	}
	if lose < p.faults.Loss || p.severed.Load() {
		p.lost.Add(1)
		return
	}
	p.forwarded.Add(1)
	if repeat < p.faults.Duplicate {
		p.repeated.Add(1)
		send(data)
	}
	if hold < p.faults.Reorder {
		p.delayed.Add(1)
		held := append([]byte(nil), data...)
		time.AfterFunc(time.Duration(delay*float64(p.faults.MaxDelay)), func() { send(held) })
		return
	}
	send(data)
}
