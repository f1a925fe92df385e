package tlsprobe_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/tlsprobe"
)

// newPair makes a certificate that expired long ago and names nobody who is
// asked for: neither is a probe's business.
func newPair(t *testing.T, serial int64) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "plc-1"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1000, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// serveTCP lets handle have each connection, which it closes.
func serveTCP(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			done.Go(func() {
				defer func() { _ = conn.Close() }()
				handle(conn)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); done.Wait() })
	return l.Addr().String()
}

func serveTLS(t *testing.T, config *tls.Config) string {
	return serveTCP(t, func(conn net.Conn) {
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		_ = tls.Server(conn, config).Handshake()
	})
}

func ask(address string, pair tls.Certificate) enrol.Probe {
	return enrol.Probe{
		Device:   fleet.Device{Name: "plc-1", Address: "127.0.0.1:5684"},
		Endpoint: address, Names: []string{"plc-1.example"}, Certificate: sha256.Sum256(pair.Certificate[0]),
	}
}

func TestServed(t *testing.T) {
	pair := newPair(t, 1)
	for name, config := range map[string]*tls.Config{
		"TLS 1.3": {MinVersion: tls.VersionTLS13},
		"TLS 1.2": {MaxVersion: tls.VersionTLS12},
		// Without a client certificate the server will not have us, but it has
		// shown its own.
		"client certificate demanded, TLS 1.3": {ClientAuth: tls.RequireAnyClientCert},
		"client certificate demanded, TLS 1.2": {ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12},
	} {
		t.Run(name, func(t *testing.T) {
			config.Certificates = []tls.Certificate{pair}
			p := &tlsprobe.Prober{Within: time.Minute, Attempt: time.Minute, Tries: 1}
			if err := p.Probe(context.Background(), ask(serveTLS(t, config), pair)); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestReload: a server needs some time to present the new certificate.
func TestReload(t *testing.T) {
	before, after := newPair(t, 1), newPair(t, 2)
	var hellos atomic.Int32
	address := serveTLS(t, &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if h.ServerName != "plc-1.example" {
			return nil, errors.New("no such server")
		}
		if hellos.Add(1) < 4 {
			return &before, nil
		}
		return &after, nil
	}})
	p := &tlsprobe.Prober{Within: time.Minute, Attempt: time.Minute, Pause: time.Millisecond}
	if err := p.Probe(context.Background(), ask(address, after)); err != nil || hellos.Load() != 4 {
		t.Errorf("%v after %d handshakes", err, hellos.Load())
	}
}

func TestNotServed(t *testing.T) {
	pair, other := newPair(t, 1), newPair(t, 0xbeef)
	borrowed := tls.Certificate{Certificate: pair.Certificate, PrivateKey: other.PrivateKey}
	closed := func() string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		return l.Addr().String()
	}()
	endless := make([]byte, 1<<16)
	for i := range endless {
		endless[i] = 0x16 // records of a handshake that never ends
	}
	for name, tt := range map[string]struct{ address, want string }{
		"the old one":  {serveTLS(t, &tls.Config{Certificates: []tls.Certificate{other}}), "presents certificate beef, valid until 1970"},
		"nobody there": {closed, "refused"},
		// Somebody who has the certificate, which is public, and not its key.
		"borrowed, TLS 1.3":          {serveTLS(t, &tls.Config{Certificates: []tls.Certificate{borrowed}}), "signature"},
		"borrowed, TLS 1.2":          {serveTLS(t, &tls.Config{Certificates: []tls.Certificate{borrowed}, MaxVersion: tls.VersionTLS12}), "signature"},
		"borrowed, asks for clients": {serveTLS(t, &tls.Config{Certificates: []tls.Certificate{borrowed}, ClientAuth: tls.RequireAnyClientCert}), "signature"},
		"no TLS":                     {serveTCP(t, func(c net.Conn) { _, _ = c.Write([]byte("220 mail.example ESMTP\r\n")) }), "TLS handshake"},
		"hangs up":                   {serveTCP(t, func(net.Conn) {}), "TLS handshake"},
		"old TLS":                    {serveTLS(t, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}), "protocol version"},
		"endless": {serveTCP(t, func(c net.Conn) {
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			for {
				if _, err := c.Write(endless); err != nil {
					return
				}
			}
		}), "TLS handshake"},
	} {
		t.Run(name, func(t *testing.T) {
			p := &tlsprobe.Prober{Within: time.Minute, Attempt: time.Minute, Pause: time.Millisecond, Tries: 2}
			err := p.Probe(context.Background(), ask(tt.address, pair))
			if !errors.Is(err, enrol.ErrNotServed) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "(2 handshakes)") {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// TestBounded: a server that says nothing, and one that ends the probe.
func TestBounded(t *testing.T) {
	pair := newPair(t, 1)
	release := make(chan struct{})
	address := serveTCP(t, func(net.Conn) { <-release })
	defer close(release)
	p := &tlsprobe.Prober{Within: 50 * time.Millisecond, Pause: time.Millisecond}
	if err := p.Probe(context.Background(), ask(address, pair)); !errors.Is(err, enrol.ErrNotServed) {
		t.Errorf("silence: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := (&tlsprobe.Prober{}).Probe(ctx, ask(address, pair)); !errors.Is(err, context.Canceled) || errors.Is(err, enrol.ErrNotServed) {
		t.Errorf("cancelled: %v", err)
	}
}

// names resolves what it knows, and remembers what it was asked.
type names struct {
	known map[string]string
	asked []string
}

func (n *names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	n.asked = append(n.asked, host)
	ip, err := netip.ParseAddr(n.known[host])
	return []netip.Addr{ip}, err
}

// TestForgedEndpoint is the attack of a device in the wrong hands that uses
// the CLM to look around in its network: it names other hosts, by address and
// by names of its own choice. None of them is connected to, none is looked up.
func TestForgedEndpoint(t *testing.T) {
	pair := newPair(t, 1)
	var connections atomic.Int32
	victim := serveTCP(t, func(net.Conn) { connections.Add(1) })
	_, port, err := net.SplitHostPort(victim)
	if err != nil {
		t.Fatal(err)
	}
	for _, endpoint := range []string{
		"127.0.0.1:" + port, "[::ffff:127.0.0.1]:" + port, "localhost:" + port, "victim.example:" + port, "victim.example.:" + port,
		"[::1]:" + port, "127.1:" + port, "2130706433:" + port, "0x7f.1:" + port, "[fe80::1%lo]:" + port,
		victim + "/path", "https://" + victim, "user@" + victim, "", ":", ":0", ":65536", ":+443", ":0443", "::1:443", "a b:443", "-a:443",
		strings.Repeat("a", 300) + ":443",
	} {
		resolver := &names{known: map[string]string{"device.example": "192.0.2.7", "victim.example": "127.0.0.1", "localhost": "127.0.0.1"}}
		p := &tlsprobe.Prober{Within: time.Minute, Tries: 1, Resolver: resolver}
		q := ask(endpoint, pair)
		q.Device.Address = "device.example:5684"
		if err := p.Probe(context.Background(), q); !errors.Is(err, enrol.ErrNotProbed) {
			t.Errorf("%s: %v", endpoint, err)
		}
		for _, name := range resolver.asked {
			if name != "device.example" {
				t.Errorf("%s: %s was looked up", endpoint, name)
			}
		}
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("%d connections to another host", n)
	}
}

// TestEndpoints: what may be named, and where that is.
func TestEndpoints(t *testing.T) {
	pair := newPair(t, 1)
	address := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{pair}})
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	allowed, err := tlsprobe.ParseAllowed([]string{"127.0.0.0/8", "Gateway.example."})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		device, endpoint string
		allowed          tlsprobe.Allowed
		vouched, ok      bool
	}{
		{"127.0.0.1:5684", ":" + port, tlsprobe.Allowed{}, false, true},
		{"127.0.0.1:5684", "0.0.0.0:" + port, tlsprobe.Allowed{}, false, true},
		{"127.0.0.1:5684", "[::]:" + port, tlsprobe.Allowed{}, false, true},
		{"127.0.0.1:5684", "[::ffff:127.0.0.1]:" + port, tlsprobe.Allowed{}, false, true},
		{"127.0.0.1:5684", "plc-1.example:" + port, tlsprobe.Allowed{}, false, true}, // its certificate's name
		{"device.example:5684", "127.0.0.1:" + port, tlsprobe.Allowed{}, false, true},
		{"device.example:5684", "DEVICE.example:" + port, tlsprobe.Allowed{}, false, true},
		{"192.0.2.7:5684", "127.0.0.1:" + port, tlsprobe.Allowed{}, false, false},
		{"192.0.2.7:5684", "127.0.0.1:" + port, allowed, false, true},
		{"192.0.2.7:5684", "[::ffff:127.0.0.1]:" + port, allowed, false, true},
		{"192.0.2.7:5684", "gateway.example:" + port, tlsprobe.Allowed{}, false, false},
		{"192.0.2.7:5684", "gateway.example:" + port, allowed, false, true},
		{"192.0.2.7:5684", "127.0.0.1:" + port, tlsprobe.Allowed{}, true, true},
		{"192.0.2.7:5684", "gateway.example:" + port, tlsprobe.Allowed{}, true, true},
		{"", ":" + port, tlsprobe.Allowed{}, false, false},
	} {
		p := &tlsprobe.Prober{Within: time.Minute, Attempt: time.Minute, Tries: 1, Allowed: tt.allowed, Resolver: &names{known: map[string]string{
			"device.example": "127.0.0.1", "DEVICE.example": "127.0.0.1", "gateway.example": "127.0.0.1",
		}}}
		q := ask(tt.endpoint, pair)
		q.Device.Address, q.Vouched = tt.device, tt.vouched
		err := p.Probe(context.Background(), q)
		if tt.ok && err != nil || !tt.ok && !errors.Is(err, enrol.ErrNotProbed) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

func TestParseAllowed(t *testing.T) {
	for _, bad := range []string{"", "10.0.0.0/33", "a b", "host:443", "*", "*.example", "-x", "1.2.3", strings.Repeat("a.", 200) + "a"} {
		if _, err := tlsprobe.ParseAllowed([]string{bad}); err == nil {
			t.Errorf("%q is allowed", bad)
		}
	}
	if _, err := tlsprobe.ParseAllowed(make([]string, 300)); err == nil {
		t.Error("300 entries are allowed")
	}
}

// FuzzEndpoint: what a device names is refused, or is its own address.
func FuzzEndpoint(f *testing.F) {
	for _, s := range []string{":443", "192.0.2.7:443", "[::]:1", "localhost:22", "[fe80::1%eth0]:443", "a.example:65535"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, endpoint string) {
		host, port, err := tlsprobe.ParseEndpoint(endpoint)
		if err != nil {
			return
		}
		if back := net.JoinHostPort(host, port); back != endpoint && "["+host+"]:"+port != endpoint {
			t.Errorf("%q is %q and %q", endpoint, host, port)
		}
	})
}
