package coaplink

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

func probe(t *testing.T, d *Dialer, address string, within time.Duration) Probed {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	p, err := d.Probe(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestProbeFindsDevice(t *testing.T) {
	t.Parallel()
	pkg := newPKG(t, 1)
	key := pkg.key(t, ibc.RoleDevice, "plc-1", 2)
	addr, _ := serve(t, newServer(key, newPeers("clm-1"), &fakeServices{}))
	d := pkg.dialer(t, "clm-1", 1)
	first, second := probe(t, d, addr, 30*time.Second), probe(t, d, addr, 30*time.Second)
	if first.Verdict != Proven || first.Identity != key.Identity() || first.Refuses || first.Reason != nil {
		t.Errorf("%+v", first)
	}
	if first.Key != second.Key || first.Key == [32]byte{} {
		t.Error("one device shows two keys")
	}
	other, _ := serve(t, newServer(key, newPeers("clm-1"), &fakeServices{}))
	if clone := probe(t, d, other, 30*time.Second); clone.Verdict != Proven || clone.Key == first.Key {
		t.Errorf("a clone: %+v", clone)
	}
	// A device that does not listen to this CLM proves itself all the same.
	if p := probe(t, pkg.dialer(t, "clm-9", 1), addr, 30*time.Second); p.Verdict != Proven || !p.Refuses || p.Identity != key.Identity() {
		t.Errorf("of another CLM: %+v", p)
	}
}

func TestProbeOfStrangers(t *testing.T) {
	t.Parallel()
	pkg, foreign := newPKG(t, 1), newPKG(t, 1)
	d := pkg.dialer(t, "clm-1", 1)
	theirs := foreign.key(t, ibc.RoleDevice, "plc-1", 1)
	addr, _ := serve(t, newServer(theirs, newPeers("clm-1"), &fakeServices{}))
	if p := probe(t, d, addr, 30*time.Second); p.Verdict != Stranger || p.Identity != theirs.Identity() || p.Key != [32]byte{} {
		t.Errorf("of another PKG: %+v", p)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	p, err := d.Probe(ctx, echo(t, 3, cancel))
	if err != nil {
		t.Fatal(err)
	}
	if p.Verdict != Stranger || p.Identity != (ibc.Identity{}) || p.Reason == nil {
		t.Errorf("an echo: %+v", p)
	}
	// Nobody: the port is closed, or swallows everything.
	hole, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if p := probe(t, d, hole.LocalAddr().String(), 300*time.Millisecond); p.Verdict != Silent {
		t.Errorf("a black hole: %+v", p)
	}
	if err := hole.Close(); err != nil {
		t.Fatal(err)
	}
	if p := probe(t, d, hole.LocalAddr().String(), 30*time.Second); p.Verdict != Silent {
		t.Errorf("a closed port: %+v", p)
	}
}

// Attack: somebody who has recorded a device's certificate, binding and all,
// or made one himself, answers in its place.
func TestProbeOfImpostors(t *testing.T) {
	t.Parallel()
	pkg, mallory := newPKG(t, 1), newPKG(t, 1)
	d := pkg.dialer(t, "clm-1", 1)
	victim, key := pkg.key(t, ibc.RoleDevice, "plc-1", 1), handshakeKeyOf(t)
	for name, certificate := range map[string]func(clientRandom []byte) ([]byte, error){
		"recorded": func([]byte) ([]byte, error) {
			return bind(victim, rand.Reader, key, make([]byte, ContextSize))
		},
		"forged": func(random []byte) ([]byte, error) {
			spki, err := spkiHash(&key.PublicKey)
			if err != nil {
				return nil, err
			}
			b, err := NewBinding(mallory.key(t, ibc.RoleDevice, "plc-1", 1), rand.Reader, spki, random)
			if err != nil {
				return nil, err
			}
			b.ParamsID = pkg.Params().ID()
			return bindingCertificate(key, b)
		},
		"a CLM's": func([]byte) ([]byte, error) {
			return bind(pkg.key(t, ibc.RoleCLM, "clm-7", 1), rand.Reader, key, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := fakeDevice(t, func(random []byte) tls.Certificate {
				der, err := certificate(random)
				if err != nil {
					t.Error(err)
				}
				return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
			})
			p := probe(t, d, addr, 30*time.Second)
			if p.Verdict != Impostor || !errors.Is(p.Reason, ErrBinding) || p.Key != [32]byte{} || p.Identity.Name == "" {
				t.Errorf("%+v", p)
			}
		})
	}
}

func handshakeKeyOf(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// echo is a service that sends back whatever it gets, and calls enough after so
// many answers.
func echo(t *testing.T, answers int, enough func()) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		b := make([]byte, 2048)
		for i := 0; ; i++ {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if i == answers {
				enough()
			}
			_, _ = conn.WriteTo(b[:n], from)
		}
	}()
	return conn.LocalAddr().String()
}

// names is a Resolver whose answers change.
type names struct {
	answers [][]netip.Addr
	asked   int
}

func (n *names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if host != "plc-1.plant" {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	n.asked++
	return n.answers[min(n.asked, len(n.answers))-1], nil
}

// A name is looked up at each contact, and each of its addresses is tried.
func TestDialResolvesNames(t *testing.T) {
	t.Parallel()
	pkg := newPKG(t, 1)
	key := pkg.key(t, ibc.RoleDevice, "plc-1", 1)
	addr, stop := serve(t, newServer(key, newPeers("clm-1"), &fakeServices{}))
	port := netip.MustParseAddrPort(addr).Port()
	// The same port of other loopback addresses: closed, or somebody else.
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.3"), port)))
	if err != nil {
		t.Fatal(err)
	}
	other := newServer(pkg.key(t, ibc.RoleDevice, "plc-2", 1), newPeers("clm-1"), &fakeServices{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- other.Serve(ctx, conn) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()

	one, two, three := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3")
	n := &names{answers: [][]netip.Addr{{one}, {two, one}, {three, two, one}, {three, two}, {two}, {}}}
	d := pkg.dialer(t, "clm-1", 1)
	d.Resolver = n
	device := deviceAt(key, "plc-1.plant:"+addr[strings.LastIndex(addr, ":")+1:])
	for range 3 {
		_ = dial(t, d, device).Close()
	}
	// Somebody else says more than nobody.
	if _, err := d.Dial(t.Context(), device); !errors.Is(err, enrol.ErrIdentity) {
		t.Errorf("another device: %v", err)
	}
	for range 2 {
		if _, err := d.Dial(t.Context(), device); !errors.Is(err, enrol.ErrUnreachable) {
			t.Errorf("nobody: %v", err)
		}
	}
	device.Address = "plc-9.plant:1"
	if _, err := d.Dial(t.Context(), device); !errors.Is(err, enrol.ErrUnreachable) || !strings.Contains(err.Error(), "no such host") {
		t.Errorf("an unknown name: %v", err)
	}
	stop()
	if n.asked != 6 {
		t.Errorf("asked %d times", n.asked)
	}
}

// A port at which nobody listens is told from an address at which nobody is.
func TestProbeOfClosedPort(t *testing.T) {
	t.Parallel()
	d := newPKG(t, 1).dialer(t, "clm-1", 1)
	socket, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	address := socket.LocalAddr().String()
	if p := probe(t, d, address, time.Second); p.Verdict != Silent || p.Closed || p.NoRoute {
		t.Errorf("silent: %+v", p)
	}
	if err := socket.Close(); err != nil {
		t.Fatal(err)
	}
	if p := probe(t, d, address, 30*time.Second); p.Verdict != Silent || !p.Closed || p.Reason == nil {
		t.Errorf("closed: %+v", p)
	}
}
