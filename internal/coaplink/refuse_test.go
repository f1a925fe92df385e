package coaplink

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	dtlsnet "github.com/pion/dtls/v3/pkg/net"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// logBuffer collects a log.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func newP256(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mustSPKI(t testing.TB, k *ecdsa.PrivateKey) [32]byte {
	t.Helper()
	sum, err := spkiHash(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// forge describes a certificate that a peer presents.
type forge struct {
	t       testing.TB
	key     crypto.Signer
	binding *Binding
	change  func(*x509.Certificate)
	chain   [][]byte // behind the certificate
}

// bound begins with an honest binding of a fresh key, for a test to spoil.
func bound(t testing.TB, key *ibc.PrivateKey, context []byte) *forge {
	t.Helper()
	k := newP256(t)
	b, err := NewBinding(key, rand.Reader, mustSPKI(t, k), context)
	if err != nil {
		t.Fatal(err)
	}
	return &forge{t: t, key: k, binding: b}
}

func (f *forge) tls() tls.Certificate {
	f.t.Helper()
	value, err := f.binding.Marshal()
	if err != nil {
		f.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Unix(2e9, 0),
		ExtraExtensions: []pkix.Extension{{Id: bindingOID(), Value: value}},
	}
	if f.change != nil {
		f.change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, f.key.Public(), f.key)
	if err != nil {
		f.t.Fatal(err)
	}
	return tls.Certificate{Certificate: append([][]byte{der}, f.chain...), PrivateKey: f.key}
}

// connect is a DTLS client that verifies nothing.
func connect(t testing.TB, addr string, opts ...dtls.ClientOption) (*dtls.Conn, error) {
	t.Helper()
	socket, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	var all []dtls.ClientOption
	for _, o := range dtlsProfile() {
		all = append(all, o)
	}
	all = append(all, opts...)
	conn, err := dtls.ClientWithOptions(dtlsnet.PacketConnFromConn(socket), socket.RemoteAddr(), all...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return conn, conn.HandshakeContext(ctx)
}

// TestDeviceRefuses: what a peer may present to a device and what comes of it.
// Whoever is refused has changed nothing on the device.
func TestDeviceRefuses(t *testing.T) {
	p1, foreign := newPKG(t, 1), newPKG(t, 1)
	p2 := newPKG(t, 2)
	clm := p1.key(t, ibc.RoleCLM, "clm-1", 2)
	for _, c := range []struct {
		name   string
		forge  func(t *testing.T) tls.Certificate
		reason string // in the device's log; "" is accepted
	}{
		{"the CLM", func(t *testing.T) tls.Certificate { return bound(t, clm, nil).tls() }, ""},
		{"a later generation", func(t *testing.T) tls.Certificate {
			return bound(t, p1.key(t, ibc.RoleCLM, "clm-1", 7), nil).tls()
		}, ""},
		{"a lower generation", func(t *testing.T) tls.Certificate {
			return bound(t, p1.key(t, ibc.RoleCLM, "clm-1", 1), nil).tls()
		}, "has been replaced by e1.g2"},
		{"a CLM that the bundle does not name", func(t *testing.T) tls.Certificate {
			return bound(t, p1.key(t, ibc.RoleCLM, "clm-9", 2), nil).tls()
		}, "clm-9/e1.g2 is none of the CLM names"},
		{"a device", func(t *testing.T) tls.Certificate {
			return bound(t, p1.key(t, ibc.RoleDevice, "clm-1", 2), nil).tls()
		}, "has not the role clm"},
		{"another PKG", func(t *testing.T) tls.Certificate {
			return bound(t, foreign.key(t, ibc.RoleCLM, "clm-1", 2), nil).tls()
		}, "another PKG"},
		{"an unknown epoch", func(t *testing.T) tls.Certificate {
			return bound(t, p2.key(t, ibc.RoleCLM, "clm-1", 2), nil).tls()
		}, "from an epoch unknown here"},
		{"an identity of another epoch than its parameters", func(t *testing.T) tls.Certificate {
			f := bound(t, p2.key(t, ibc.RoleCLM, "clm-1", 2), nil)
			f.binding.ParamsID = p1.Params().ID()
			return f.tls()
		}, "its parameters are those of epoch 1"},
		{"a forged CLM, signed by another identity", func(t *testing.T) tls.Certificate {
			f := bound(t, p1.key(t, ibc.RoleDevice, "plc-2", 1), nil)
			f.binding.Identity = clm.Identity()
			return f.tls()
		}, "signature does not verify"},
		{"a forged generation", func(t *testing.T) tls.Certificate {
			f := bound(t, clm, nil)
			f.binding.Identity.Generation = 3
			return f.tls()
		}, "signature does not verify"},
		{"the binding of another handshake key", func(t *testing.T) tls.Certificate {
			f := bound(t, clm, nil)
			f.key = newP256(t)
			return f.tls()
		}, "signature does not verify"},
		{"a binding with a context", func(t *testing.T) tls.Certificate {
			return bound(t, clm, make([]byte, ContextSize)).tls()
		}, "has no context"},
		{"a stolen certificate without its key", func(t *testing.T) tls.Certificate {
			c := bound(t, clm, nil).tls()
			c.PrivateKey = newP256(t)
			return c
		}, "handshake failed"},
		{"a certificate of more than 1 KiB", func(t *testing.T) tls.Certificate {
			f := bound(t, clm, nil)
			f.change = func(c *x509.Certificate) { c.Subject.CommonName = strings.Repeat("x", 900) }
			return f.tls()
		}, "at most 1024 are allowed"},
		{"an extra extension", func(t *testing.T) tls.Certificate {
			f := bound(t, clm, nil)
			f.change = func(c *x509.Certificate) { c.DNSNames = []string{"clm"} }
			return f.tls()
		}, "exactly one extension"},
		{"an extra extension behind the binding", func(t *testing.T) tls.Certificate {
			f := bound(t, clm, nil)
			f.change = func(c *x509.Certificate) {
				c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: []int{1, 2, 3}, Value: []byte{5, 0}})
			}
			return f.tls()
		}, "exactly one extension"},
		{"no extension", func(t *testing.T) tls.Certificate {
			f := bound(t, clm, nil)
			f.change = func(c *x509.Certificate) { c.ExtraExtensions = nil }
			return f.tls()
		}, "exactly one extension"},
		{"two certificates", func(t *testing.T) tls.Certificate {
			f := bound(t, clm, nil)
			f.chain = bound(t, clm, nil).tls().Certificate
			return f.tls()
		}, "2 certificates instead of one"},
		{"a key on another curve", func(t *testing.T) tls.Certificate {
			f := bound(t, clm, nil)
			k, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			f.key = k
			return f.tls()
		}, "its key is not ECDSA on P-256"},
		{"an RSA key", func(t *testing.T) tls.Certificate {
			f := bound(t, clm, nil)
			k, err := rsa.GenerateKey(rand.Reader, 2048)
			if err != nil {
				t.Fatal(err)
			}
			f.key = k
			return f.tls()
		}, "handshake failed"},
		{"no certificate", func(*testing.T) tls.Certificate { return tls.Certificate{} }, "handshake failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			log := &logBuffer{}
			peers := newPeers("clm-1")
			peers.floors["clm-1"] = [2]uint32{1, 2}
			services := &fakeServices{}
			s := newServer(p1.key(t, ibc.RoleDevice, "plc-1", 1), peers, services)
			s.Log = log.logger()
			addr, stop := serve(t, s)
			certificate := c.forge(t)
			var opts []dtls.ClientOption
			if certificate.Certificate != nil {
				opts = append(opts, dtls.WithGetClientCertificate(func(*dtls.CertificateRequestInfo) (*tls.Certificate, error) {
					return &certificate, nil
				}))
			}
			_, err := connect(t, addr, opts...)
			stop()
			if (err == nil) != (c.reason == "") {
				t.Fatalf("handshake: %v", err)
			}
			if c.reason == "" {
				if !strings.Contains(log.String(), "session opened") {
					t.Error("no session")
				}
				return
			}
			if !strings.Contains(log.String(), c.reason) {
				t.Errorf("log lacks %q:\n%s", c.reason, log)
			}
			if strings.Contains(log.String(), "session opened") || len(services.calls) > 0 || len(peers.raised) > 0 || len(peers.certs) > 0 {
				t.Errorf("it left traces: calls %v, raised %v, %d certificates", services.calls, peers.raised, len(peers.certs))
			}
		})
	}
}

// fakeDevice is a DTLS server that presents whatever certificate is wanted.
func fakeDevice(t testing.TB, certificate func(clientRandom []byte) tls.Certificate) string {
	t.Helper()
	opts := []dtls.ServerOption{
		dtls.WithClientAuth(dtls.RequireAnyClientCert),
		dtls.WithGetCertificate(func(h *dtls.ClientHelloInfo) (*tls.Certificate, error) {
			c := certificate(h.RandomBytes[:])
			return &c, nil
		}),
	}
	for _, o := range dtlsProfile() {
		opts = append(opts, o)
	}
	l, err := dtls.ListenWithOptions("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				defer cancel()
				if conn, ok := c.(*dtls.Conn); ok && conn.HandshakeContext(ctx) != nil {
					_ = c.Close()
				}
			}()
		}
	}()
	return l.Addr().String()
}

// TestCLMRefuses: what may answer on a device's address and what the CLM makes
// of it.
func TestCLMRefuses(t *testing.T) {
	p1, foreign := newPKG(t, 1), newPKG(t, 1)
	p2 := newPKG(t, 2)
	inventory := p1.key(t, ibc.RoleDevice, "plc-1", 2)
	old := bytes.Repeat([]byte{1}, ContextSize)
	for _, c := range []struct {
		name   string
		forge  func(t *testing.T, random []byte) tls.Certificate
		want   ibc.Identity // accepted as
		reason string
	}{
		{name: "the device", want: inventory.Identity(), forge: func(t *testing.T, r []byte) tls.Certificate {
			return bound(t, inventory, r).tls()
		}},
		{name: "a later generation", want: ibc.Identity{Role: ibc.RoleDevice, Name: "plc-1", Epoch: 1, Generation: 3}, forge: func(t *testing.T, r []byte) tls.Certificate {
			return bound(t, p1.key(t, ibc.RoleDevice, "plc-1", 3), r).tls()
		}},
		{name: "a later epoch, generations begin anew", want: ibc.Identity{Role: ibc.RoleDevice, Name: "plc-1", Epoch: 2, Generation: 1}, forge: func(t *testing.T, r []byte) tls.Certificate {
			return bound(t, p2.key(t, ibc.RoleDevice, "plc-1", 1), r).tls()
		}},
		{name: "another device of the same PKG", reason: "it names edgeclm/v1/dev/plc-2/e1.g2", forge: func(t *testing.T, r []byte) tls.Certificate {
			return bound(t, p1.key(t, ibc.RoleDevice, "plc-2", 2), r).tls()
		}},
		{name: "an earlier generation", reason: "edgeclm/v1/dev/plc-1/e1.g1, an earlier key", forge: func(t *testing.T, r []byte) tls.Certificate {
			return bound(t, p1.key(t, ibc.RoleDevice, "plc-1", 1), r).tls()
		}},
		{name: "another PKG", reason: "another PKG", forge: func(t *testing.T, r []byte) tls.Certificate {
			return bound(t, foreign.key(t, ibc.RoleDevice, "plc-1", 2), r).tls()
		}},
		{name: "a CLM that plays the device", reason: "it names edgeclm/v1/clm/plc-1/e1.g2", forge: func(t *testing.T, r []byte) tls.Certificate {
			return bound(t, p1.key(t, ibc.RoleCLM, "plc-1", 2), r).tls()
		}},
		{name: "the device's binding of another handshake", reason: "made for another handshake", forge: func(t *testing.T, _ []byte) tls.Certificate {
			return bound(t, inventory, old).tls()
		}},
		{name: "a binding without context", reason: "made for another handshake", forge: func(t *testing.T, _ []byte) tls.Certificate {
			return bound(t, inventory, nil).tls()
		}},
		{name: "a replayed signature with the context changed", reason: "signature does not verify", forge: func(t *testing.T, r []byte) tls.Certificate {
			f := bound(t, inventory, old)
			f.binding.Context = r
			return f.tls()
		}},
		{name: "a forged signature", reason: "signature does not verify", forge: func(t *testing.T, r []byte) tls.Certificate {
			f := bound(t, p1.key(t, ibc.RoleDevice, "plc-2", 2), r)
			f.binding.Identity = inventory.Identity()
			return f.tls()
		}},
		{name: "a certificate of more than 1 KiB", reason: "at most 1024", forge: func(t *testing.T, r []byte) tls.Certificate {
			f := bound(t, inventory, r)
			f.change = func(c *x509.Certificate) { c.Subject.CommonName = strings.Repeat("x", 900) }
			return f.tls()
		}},
		{name: "an extra extension", reason: "exactly one extension", forge: func(t *testing.T, r []byte) tls.Certificate {
			f := bound(t, inventory, r)
			f.change = func(c *x509.Certificate) { c.DNSNames = []string{"plc-1"} }
			return f.tls()
		}},
		{name: "two certificates", reason: "2 certificates", forge: func(t *testing.T, r []byte) tls.Certificate {
			f := bound(t, inventory, r)
			f.chain = bound(t, inventory, r).tls().Certificate
			return f.tls()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			addr := fakeDevice(t, func(r []byte) tls.Certificate { return c.forge(t, r) })
			d := p1.dialer(t, "clm-1", 1)
			d.Params = append(d.Params, p2.Params())
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			link, err := d.Dial(ctx, deviceAt(inventory, addr))
			if c.reason == "" {
				if err != nil || link.Identity() != c.want {
					t.Fatalf("dial: %v, %v", link, err)
				}
				_ = link.Close()
				return
			}
			if !errors.Is(err, enrol.ErrIdentity) {
				t.Fatalf("dial: %v", err)
			}
			for _, part := range []string{c.reason, inventory.Identity().String()} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error lacks %q: %v", part, err)
				}
			}
		})
	}
}

// TestRefusedCLMLearnsWhy: the CLM's error names both identities when the
// device does not accept it.
func TestRefusedCLMLearnsWhy(t *testing.T) {
	p := newPKG(t, 1)
	key := p.key(t, ibc.RoleDevice, "plc-1", 1)
	addr, _ := serve(t, newServer(key, newPeers("clm-1"), &fakeServices{}))
	_, err := p.dialer(t, "clm-2", 1).Dial(context.Background(), deviceAt(key, addr))
	if !errors.Is(err, enrol.ErrIdentity) {
		t.Fatalf("err = %v", err)
	}
	for _, part := range []string{"edgeclm/v1/dev/plc-1/e1.g1", "edgeclm/v1/clm/clm-2/e1.g1"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error lacks %q: %v", part, err)
		}
	}
}

// TestNobodyThere: a closed port is told from an identity that is refused.
func TestNobodyThere(t *testing.T) {
	p := newPKG(t, 1)
	key := p.key(t, ibc.RoleDevice, "plc-1", 1)
	addr, stop := serve(t, newServer(key, newPeers("clm-1"), &fakeServices{}))
	stop()
	_, err := p.dialer(t, "clm-1", 1).Dial(context.Background(), deviceAt(key, addr))
	if !errors.Is(err, enrol.ErrUnreachable) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("err = %v", err)
	}
}

// TestWeakerHandshakesRefused: an honest CLM with weaker cryptography than the
// profile demands.
func TestWeakerHandshakesRefused(t *testing.T) {
	p := newPKG(t, 1)
	key := p.key(t, ibc.RoleDevice, "plc-1", 1)
	log := &logBuffer{}
	s := newServer(key, newPeers("clm-1"), &fakeServices{})
	s.Log = log.logger()
	addr, stop := serve(t, s)
	certificate := bound(t, p.key(t, ibc.RoleCLM, "clm-1", 1), nil).tls()
	for name, weaker := range map[string]dtls.ClientOption{
		"no extended master secret": dtls.WithExtendedMasterSecret(dtls.DisableExtendedMasterSecret),
		"CBC":                       dtls.WithCipherSuites(dtls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA),
		"CCM-8":                     dtls.WithCipherSuites(dtls.TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8),
		"RSA":                       dtls.WithCipherSuites(dtls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
	} {
		if _, err := connect(t, addr, dtls.WithCertificates(certificate), weaker); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	stop()
	if strings.Contains(log.String(), "session opened") {
		t.Errorf("log:\n%s", log)
	}
}
