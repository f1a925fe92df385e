package conformance

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"log/slog"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/udp/coder"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// bench is the product's own device on loopback, and a CLM that it accepts.
type bench struct {
	master  *ibc.MasterSecret
	device  *ibc.PrivateKey
	clm     tls.Certificate
	address string
	agent   *agent.Agent
}

func (b *bench) agentStatus() (enrol.DeviceStatus, error) {
	return b.agent.Status(context.Background(), ibc.Identity{})
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func newBench(t *testing.T) *bench {
	t.Helper()
	master := must[*ibc.MasterSecret](t)(ibc.Setup(rand.Reader, 1))
	extract := func(role ibc.Role, name string) *ibc.PrivateKey {
		// The second generation, so that there is an earlier one.
		return must[*ibc.PrivateKey](t)(master.Extract(must[ibc.Identity](t)(ibc.NewIdentity(role, name, 1, 2))))
	}
	b := &bench{master: master, device: extract(ibc.RoleDevice, "plc-1")}
	credential := must[*coaplink.Credential](t)(coaplink.NewCredential(extract(ibc.RoleCLM, "clm-1"), rand.Reader))
	pem := must[[]byte](t)(credential.MarshalPEM())
	b.clm = must[tls.Certificate](t)(tls.X509KeyPair(pem, pem))

	dir := t.TempDir()
	_, recipient, err := agent.Provisioned(dir, nil).Recipient()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := agent.Provision(dir, nil, &bundle.Bundle{
		Identity: b.device.Identity(), Params: b.device.Params(), Key: b.device, Names: fleet.DefaultNames("plc-1"),
		Peers:     []bundle.Peer{{Name: "clm-1", Epoch: 1, Generation: 1}},
		Recipient: bundle.Hash(recipient.Hash()), RecoveryHash: bundle.Hash(sha256.Sum256([]byte("recovery"))),
	}); err != nil {
		t.Fatal(err)
	}
	b.device = extract(ibc.RoleDevice, "plc-1")
	a := must[*agent.Agent](t)(agent.Open(agent.Config{
		Dir: dir, Random: rand.Reader, Now: time.Now, Log: slog.New(slog.DiscardHandler), Version: "test", Key: fleet.ECDSAP256,
	}))
	b.agent = a
	conn := must[net.PacketConn](t)(net.ListenPacket("udp", "127.0.0.1:0"))
	b.address = conn.LocalAddr().String()
	server := &coaplink.Server{
		Self: a, Peers: a, Services: a, Random: rand.Reader, Now: time.Now,
		Log: slog.New(slog.DiscardHandler), Limits: coaplink.Limits{FirstFlights: 1 << 10, Waiting: 1 << 10, Slots: 1 << 8, SourceBurst: 1 << 20, PairBurst: 1 << 20, Sessions: 1 << 10},
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := server.Serve(ctx, conn); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		done.Wait()
		if err := a.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

func (b *bench) target(address string) Target {
	return Target{
		Address: address, Identity: b.device.Identity(), Params: []*ibc.Params{b.master.Params()}, Certificate: b.clm,
		Random: rand.Reader, Slot: true, Patience: time.Minute, Repeat: -1,
	}
}

// impersonator has the key of a device, ends the channel in its place, and
// hands the messages on to the device: a foreign device that does everything
// right but for what is broken in it.
type impersonator struct {
	*bench
	breakage
	listener net.Listener
	key      *ecdsa.PrivateKey

	mu     sync.Mutex
	cached [][]byte // certificates of the first handshake
	held   message.Message
	seen   map[string]int
}

// breakage is what an impersonator does wrong; the zero value is nothing.
type breakage struct {
	newKey  bool // of each handshake
	options []dtls.ServerOption
	// certify makes the certificates of a handshake; nil: as they should be.
	certify func(p *impersonator, random []byte) [][]byte
	// verify judges the client's certificates; nil: it has to be the CLM's.
	verify func(certificates [][]byte) error
	// request changes what the device gets to see.
	request func(p *impersonator, m *message.Message)
	// respond changes the device's response to a request; false drops it.
	respond func(p *impersonator, request, response *message.Message) bool
}

// count says how often something has been seen, this time included.
func (p *impersonator) count(what string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[what]++
	return p.seen[what]
}

// shape is what a certificate of a device is made of.
type shape struct {
	key       *ibc.PrivateKey
	handshake *ecdsa.PrivateKey
	context   []byte
	version   int
	paramsID  []byte // nil: the key's
	flip      bool   // a bit of the signature
	extension []pkix.Extension
	subject   string
}

func (p *impersonator) certificate(s shape) []byte {
	spki, err := x509.MarshalPKIXPublicKey(s.handshake.Public())
	if err != nil {
		return nil
	}
	made, err := coaplink.NewBinding(s.key, rand.Reader, sha256.Sum256(spki), s.context)
	if err != nil {
		return nil
	}
	if s.flip {
		other, err := coaplink.NewBinding(s.key, rand.Reader, [32]byte{}, s.context)
		if err != nil {
			return nil
		}
		made.Signature = other.Signature
	}
	b := binding{s.version, made.ParamsID[:], made.Identity.String(), made.Context, made.Signature}
	if s.paramsID != nil {
		b.ParamsID = s.paramsID
	}
	value, err := asn1.Marshal(b)
	if err != nil {
		return nil
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0), Subject: pkix.Name{CommonName: s.subject},
		ExtraExtensions: append([]pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 7250, 1}, Value: value}}, s.extension...),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, s.handshake.Public(), s.handshake)
	if err != nil {
		return nil
	}
	return der
}

// right is the shape as it should be.
func (p *impersonator) right(random []byte) shape {
	return shape{key: p.device, handshake: p.key, context: random, version: 1}
}

func (b *bench) impersonate(t *testing.T, broken breakage) *impersonator {
	t.Helper()
	p := &impersonator{bench: b, breakage: broken, seen: map[string]int{}}
	p.key = must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	options := []dtls.ServerOption{
		dtls.WithClientAuth(dtls.RequireAnyClientCert),
		dtls.WithGetCertificate(func(hello *dtls.ClientHelloInfo) (*tls.Certificate, error) {
			if p.newKey {
				s := p.right(hello.RandomBytes[:])
				s.handshake = must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
				return &tls.Certificate{Certificate: [][]byte{p.certificate(s)}, PrivateKey: s.handshake}, nil
			}
			certificates := [][]byte{p.certificate(p.right(hello.RandomBytes[:]))}
			if p.certify != nil {
				certificates = p.certify(p, hello.RandomBytes[:])
			}
			return &tls.Certificate{Certificate: certificates, PrivateKey: p.key}, nil
		}),
		dtls.WithVerifyPeerCertificate(func(certificates [][]byte, _ [][]*x509.Certificate) error {
			if p.verify != nil {
				return p.verify(certificates)
			}
			return p.isCLM(certificates)
		}),
		dtls.WithCipherSuites(ours()...),
		dtls.WithSignatureSchemes(tls.ECDSAWithP256AndSHA256),
		dtls.WithExtendedMasterSecret(dtls.RequireExtendedMasterSecret),
		dtls.WithFlightInterval(flightTime), dtls.WithDisableRetransmitBackoff(true), dtls.WithInsecureSkipVerify(true),
		dtls.WithConnectionIDGenerator(dtls.RandomCIDGenerator(8)),
	}
	listener, err := dtls.ListenWithOptions("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, append(options, broken.options...)...)
	if err != nil {
		t.Fatal(err)
	}
	p.listener = listener
	var done sync.WaitGroup
	done.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			done.Go(func() { p.serve(t.Context(), conn) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		done.Wait()
	})
	return p
}

type notCLM struct{}

func (notCLM) Error() string { return "not the CLM's certificate" }

func (p *impersonator) isCLM(certificates [][]byte) error {
	if len(certificates) != 1 || string(certificates[0]) != string(p.clm.Certificate[0]) {
		return notCLM{}
	}
	return nil
}

// serve hands messages on in both directions until either side ends it.
func (p *impersonator) serve(ctx context.Context, outer net.Conn) {
	defer outer.Close()
	if c, ok := outer.(*dtls.Conn); ok && c.HandshakeContext(ctx) != nil {
		return
	}
	t := &tester{Target: p.target(p.address)}
	inner, _, err := t.connect(ctx, proper)
	if err != nil {
		return
	}
	var mu sync.Mutex
	requests := map[int32]*message.Message{}
	var done sync.WaitGroup
	done.Go(func() {
		defer outer.Close()
		for {
			b := make([]byte, readBuffer)
			n, err := inner.conn.Read(b)
			if err != nil {
				return
			}
			m := decode(b[:n])
			mu.Lock()
			request := requests[m.MessageID]
			mu.Unlock()
			if request != nil && p.respond != nil && !p.respond(p, request, m) {
				continue
			}
			if b, err := encode(*m); err == nil {
				_, _ = outer.Write(b)
			}
		}
	})
	for {
		b := make([]byte, readBuffer)
		n, err := outer.Read(b)
		if err != nil {
			break
		}
		m := decode(b[:n])
		mu.Lock()
		requests[m.MessageID] = decode(b[:n])
		mu.Unlock()
		if p.request != nil {
			p.request(p, m)
		}
		if b, err := encode(*m); err == nil {
			_, _ = inner.conn.Write(b)
		}
	}
	inner.close()
	done.Wait()
}

// decode decodes a message; one that is none becomes an empty one.
func decode(b []byte) *message.Message {
	m := &message.Message{Options: make(message.Options, 0, 16)}
	_, _ = coder.DefaultCoder.Decode(b, m)
	return m
}
