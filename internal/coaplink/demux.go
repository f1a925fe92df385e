package coaplink

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/transport/v5/deadline"
)

const (
	// maxWire bounds a datagram in bytes; what is longer is dropped.
	maxWire = 2048
	// flowBacklog is how many datagrams wait for one peer's goroutine.
	flowBacklog = 16
	// maxReadFailures in a row end the service, readPause between them.
	maxReadFailures = 100
	readPause       = 20 * time.Millisecond
)

// demux shares one socket between many peers: it finds the flow of a datagram
// by connection ID, else by address, and opens one for a first ClientHello.
type demux struct {
	conn    net.PacketConn
	gate    *gate
	cookies *cookies
	opened  func(*flow, *pass)
	probes  chan chan struct{} // each is closed by run

	mu     sync.Mutex
	byAddr map[netip.AddrPort]*flow
	byCID  map[[cidSize]byte]*flow
	closed bool
}

func newDemux(conn net.PacketConn, g *gate, c *cookies, opened func(*flow, *pass)) *demux {
	return &demux{
		conn: conn, gate: g, cookies: c, opened: opened,
		probes: make(chan chan struct{}, 1),
		byAddr: map[netip.AddrPort]*flow{}, byCID: map[[cidSize]byte]*flow{},
	}
}

// alive returns nil once run has answered. It costs no datagram: a read
// deadline that has passed ends run's wait for one.
func (d *demux) alive(ctx context.Context) error {
	probe := make(chan struct{})
	select {
	case d.probes <- probe:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := d.conn.SetReadDeadline(time.Unix(1, 0)); err != nil {
		return err
	}
	select {
	case <-probe:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// answer answers the probe for which a read was ended.
func (d *demux) answer() error {
	// First, so that a deadline set for the next probe stays.
	if err := d.conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	select {
	case probe := <-d.probes:
		close(probe)
	default:
	}
	return nil
}

// run reads datagrams until the socket is closed.
func (d *demux) run() error {
	buffer := make([]byte, maxWire+1)
	for failures := 0; ; {
		n, addr, err := d.conn.ReadFrom(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = d.answer()
			if err == nil {
				continue
			}
		}
		if err != nil {
			// A passing error of the network must not end the service.
			if failures++; failures > maxReadFailures || errors.Is(err, net.ErrClosed) {
				return err
			}
			time.Sleep(readPause)
			continue
		}
		failures = 0
		udp, ok := addr.(*net.UDPAddr)
		if !ok || n == 0 || n > maxWire {
			continue
		}
		d.dispatch(buffer[:n], udp)
	}
}

// dispatch hands a datagram, of which it keeps nothing, to its flow.
func (d *demux) dispatch(data []byte, addr *net.UDPAddr) {
	key := addrKey(addr)
	hello, isHello := parseHello(data)
	d.mu.Lock()
	f := d.find(data, key)
	d.mu.Unlock()
	if f != nil && isHello && f.replacedBy(hello) {
		_ = f.Close()
		f = nil
	}
	switch {
	case f != nil:
		f.deliver(datagram{bytes.Clone(data), addr})
	case !isHello:
	case hello.sequence == 0:
		d.open(data, hello, addr, key)
	default:
		// The answer to a cookie. Which handshake it belongs to is forgotten, but
		// it may prove the address for the next one.
		if d.cookies.valid(key, hello) {
			d.gate.prove(key)
		}
		_, _ = d.conn.WriteTo(disown(hello), addr)
	}
}

// open begins a handshake, or asks for a cookie without keeping anything if
// handshakes come too fast.
func (d *demux) open(data []byte, h hello, addr *net.UDPAddr, key netip.AddrPort) {
	f := newFlow(d, addr, key)
	copy(f.random[:], h.random)
	p := d.gate.enter(key, func() { _ = f.Close() })
	if p == nil {
		_, _ = d.conn.WriteTo(d.cookies.verifyRequest(key, h), addr)
		return
	}
	f.deliver(datagram{bytes.Clone(data), addr})
	d.mu.Lock()
	closed := d.closed
	if !closed {
		d.byAddr[key] = f
	}
	d.mu.Unlock()
	if closed {
		p.release()
		return
	}
	d.opened(f, p)
}

func (d *demux) find(data []byte, key netip.AddrPort) *flow {
	if data[0] == recordCID && len(data) >= recordHeader+cidSize {
		// The connection ID stands before the length (RFC 9146 section 4).
		return d.byCID[[cidSize]byte(data[recordHeader-2:])]
	}
	return d.byAddr[key]
}

// close closes every flow and the socket.
func (d *demux) close() {
	d.mu.Lock()
	d.closed = true
	flows := make([]*flow, 0, len(d.byAddr))
	for _, f := range d.byAddr {
		flows = append(flows, f)
	}
	d.mu.Unlock()
	for _, f := range flows {
		_ = f.Close()
	}
	_ = d.conn.Close()
}

// addCID makes datagrams with a connection ID reach the flow.
func (d *demux) addCID(cid []byte, f *flow) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.byCID, f.cid)
	f.cid = [cidSize]byte(cid)
	d.byCID[f.cid] = f
}

func (d *demux) remove(f *flow) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.byAddr[f.key] == f {
		delete(d.byAddr, f.key)
	}
	if d.byCID[f.cid] == f {
		delete(d.byCID, f.cid)
	}
}

func addrKey(a *net.UDPAddr) netip.AddrPort {
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// datagram is one received packet; its sender may change with connection IDs.
type datagram struct {
	data []byte
	from net.Addr
}

// flow is the part of the socket that belongs to one peer; it implements
// net.PacketConn for the DTLS library.
type flow struct {
	mux  *demux
	addr *net.UDPAddr
	key  netip.AddrPort
	cid  [cidSize]byte // guarded by mux.mu; zero: none

	random [randomSize]byte // of the first ClientHello
	proved atomic.Bool      // the peer has returned its cookie

	in       chan datagram
	deadline *deadline.Deadline
	closed   chan struct{}
	once     sync.Once
}

var _ net.PacketConn = (*flow)(nil)

func newFlow(d *demux, addr *net.UDPAddr, key netip.AddrPort) *flow {
	return &flow{
		mux: d, addr: addr, key: key,
		in: make(chan datagram, flowBacklog), deadline: deadline.New(), closed: make(chan struct{}),
	}
}

// replacedBy reports whether a ClientHello shows that the peer has given up
// this handshake for another one from the same port. Once the address is
// proved nobody can claim that in the peer's name.
func (f *flow) replacedBy(h hello) bool {
	return h.sequence == 0 && !f.proved.Load() && !bytes.Equal(h.random, f.random[:])
}

// deliver drops the datagram if the peer sends faster than it is served.
func (f *flow) deliver(d datagram) {
	select {
	case f.in <- d:
	default:
	}
}

// ReadFrom implements net.PacketConn.
func (f *flow) ReadFrom(p []byte) (int, net.Addr, error) {
	select {
	case <-f.closed:
		return 0, nil, net.ErrClosed
	case <-f.deadline.Done():
		return 0, nil, os.ErrDeadlineExceeded
	default:
	}
	select {
	case d := <-f.in:
		return copy(p, d.data), d.from, nil
	case <-f.closed:
		return 0, nil, net.ErrClosed
	case <-f.deadline.Done():
		return 0, nil, os.ErrDeadlineExceeded
	}
}

// WriteTo implements net.PacketConn.
func (f *flow) WriteTo(p []byte, addr net.Addr) (int, error) {
	select {
	case <-f.closed:
		return 0, net.ErrClosed
	default:
		return f.mux.conn.WriteTo(p, addr)
	}
}

// Close implements net.PacketConn; the socket stays open.
func (f *flow) Close() error {
	f.once.Do(func() {
		close(f.closed)
		f.mux.remove(f)
	})
	return nil
}

// LocalAddr implements net.PacketConn.
func (f *flow) LocalAddr() net.Addr { return f.mux.conn.LocalAddr() }

// SetDeadline implements net.PacketConn.
func (f *flow) SetDeadline(t time.Time) error { return f.SetReadDeadline(t) }

// SetReadDeadline implements net.PacketConn.
func (f *flow) SetReadDeadline(t time.Time) error {
	f.deadline.Set(t)
	return nil
}

// SetWriteDeadline implements net.PacketConn. Writing to a UDP socket does not
// wait, and the socket is everybody's.
func (f *flow) SetWriteDeadline(time.Time) error { return nil }
