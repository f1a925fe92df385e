package coaplink

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/pion/transport/v5/deadline"
)

const (
	// maxWire bounds a datagram in bytes; what is longer is dropped.
	maxWire = 2048
	// flowBacklog is how many datagrams wait for one peer's goroutine.
	flowBacklog = 16
)

// Record layer constants (RFC 6347 section 4.1, RFC 9146 section 4).
const (
	recordHandshake    = 22
	recordCID          = 25
	recordHeader       = 13
	handshakeHeader    = 12
	messageClientHello = 1
)

// demux shares one socket between many peers: it finds the flow of a datagram
// by connection ID, else by address, and opens one for a first ClientHello.
type demux struct {
	conn   net.PacketConn
	opened func(*flow)

	mu     sync.Mutex
	byAddr map[netip.AddrPort]*flow
	byCID  map[[cidSize]byte]*flow
	closed bool
}

func newDemux(conn net.PacketConn, opened func(*flow)) *demux {
	return &demux{
		conn: conn, opened: opened,
		byAddr: map[netip.AddrPort]*flow{}, byCID: map[[cidSize]byte]*flow{},
	}
}

// run reads datagrams until the socket is closed.
func (d *demux) run() error {
	buffer := make([]byte, maxWire+1)
	for {
		n, addr, err := d.conn.ReadFrom(buffer)
		if err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() { //nolint:errorlint // the socket's own error
				continue
			}
			return err
		}
		udp, ok := addr.(*net.UDPAddr)
		if !ok || n == 0 || n > maxWire {
			continue
		}
		d.dispatch(append([]byte(nil), buffer[:n]...), udp)
	}
}

func (d *demux) dispatch(data []byte, addr *net.UDPAddr) {
	key := addrKey(addr)
	d.mu.Lock()
	f := d.find(data, key)
	fresh := false
	if f == nil && !d.closed {
		switch kind(data) {
		case firstHello:
			f = newFlow(d, addr, key)
			d.byAddr[key] = f
			fresh = true
		case laterHello:
			d.mu.Unlock()
			d.disown(addr)
			return
		}
	}
	d.mu.Unlock()
	if f == nil {
		return
	}
	f.deliver(datagram{data, addr})
	if fresh {
		d.opened(f)
	}
}

func (d *demux) find(data []byte, key netip.AddrPort) *flow {
	if data[0] == recordCID && len(data) >= recordHeader+cidSize {
		// The connection ID stands before the length (RFC 9146 section 4).
		return d.byCID[[cidSize]byte(data[recordHeader-2:])]
	}
	return d.byAddr[key]
}

// disown tells a client that half of its handshake has been dropped here, so
// that it begins anew at once: a plaintext alert (RFC 5246 section 7.2) that is
// smaller than what it answers.
func (d *demux) disown(addr *net.UDPAddr) {
	const fatal, internalError = 2, 80
	_, _ = d.conn.WriteTo([]byte{21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, fatal, internalError}, addr)
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

// helloKind says what a datagram of an unknown peer is.
type helloKind int

const (
	noHello    helloKind = iota
	firstHello           // opens a handshake
	laterHello           // the answer to a cookie that was given out before
)

// kind looks for an unencrypted ClientHello (RFC 6347 section 4.2) and at its
// message number: 0 before the cookie exchange, 1 after it.
func kind(data []byte) helloKind {
	if len(data) < recordHeader+handshakeHeader || data[0] != recordHandshake || data[1] != 0xfe ||
		data[3] != 0 || data[4] != 0 || data[recordHeader] != messageClientHello {
		return noHello
	}
	if data[recordHeader+4] == 0 && data[recordHeader+5] == 0 {
		return firstHello
	}
	return laterHello
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
