package coaplink

import (
	"bytes"
	"context"
	"crypto/rand"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	dtlsnet "github.com/pion/dtls/v3/pkg/net"

	"github.com/edgeclm/edgeclm/internal/coaplink/lossy"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

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
	for name, trust := range map[string]func(netip.Addr) bool{
		"from anywhere":                nil,
		"in the name of the CLM's own": netip.Addr.IsLoopback,
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

// TestNewHandshakeFromSamePort: a peer whose first handshake came to nothing may
// begin another one from the same port.
func TestNewHandshakeFromSamePort(t *testing.T) {
	p := newPKG(t, 1)
	key := p.key(t, ibc.RoleDevice, "plc-1", 1)
	d := p.dialer(t, "clm-1", 1)
	addr, _ := serve(t, newServer(key, newPeers("clm-1"), &fakeServices{}))
	c, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(firstFlight(t, d, key)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 2048)); err != nil {
		t.Fatal(err)
	}
	options := []dtls.ClientOption{dtls.WithCertificates(d.Credential.tls())}
	for _, o := range dtlsProfile() {
		options = append(options, o)
	}
	conn, err := dtls.ClientWithOptions(dtlsnet.PacketConnFromConn(c), c.RemoteAddr(), options...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		t.Error(err)
	}
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
