package e2e

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
	"math/big"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	dtlsnet "github.com/pion/dtls/v3/pkg/net"

	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/testpeer"
)

// attacker sends to one device from ever new addresses of the loopback network.
type attacker struct {
	to      *net.UDPAddr
	forged  tls.Certificate
	sources atomic.Uint32
	sent    atomic.Int64
}

// dial opens a socket with a source address that was not used lately.
func (a *attacker) dial() (*net.UDPConn, error) {
	n := a.sources.Add(1)
	return net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 9, byte(n>>8), byte(n)|1)}, a.to)
}

// datagrams sends what next returns, about two thousand times a second.
func (a *attacker) datagrams(ctx context.Context, next func() []byte) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for range 2 {
			c, err := a.dial()
			if err != nil {
				continue
			}
			_, _ = c.Write(next())
			_ = c.Close()
			a.sent.Add(1)
		}
	}
}

// handshakes keeps sixteen handshakes going; each sends at most so many
// datagrams and waits for a while.
func (a *attacker) handshakes(ctx context.Context, datagrams int, certificate tls.Certificate) {
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for ctx.Err() == nil {
				a.handshake(ctx, datagrams, certificate)
			}
		})
	}
	wg.Wait()
}

func (a *attacker) handshake(ctx context.Context, datagrams int, certificate tls.Certificate) {
	socket, err := a.dial()
	if err != nil {
		return
	}
	defer func() { _ = socket.Close() }()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	conn, err := dtls.ClientWithOptions(&mute{PacketConn: dtlsnet.PacketConnFromConn(socket), left: datagrams}, a.to,
		dtls.WithInsecureSkipVerify(true), dtls.WithCertificates(certificate), dtls.WithExtendedMasterSecret(dtls.RequireExtendedMasterSecret),
		dtls.WithCipherSuites(dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256), dtls.WithConnectionIDGenerator(dtls.OnlySendCIDGenerator()))
	if err != nil {
		return
	}
	a.sent.Add(1)
	_ = conn.HandshakeContext(ctx)
	_ = conn.Close()
}

// mute falls silent after so many datagrams.
type mute struct {
	net.PacketConn
	left int
}

func (m *mute) WriteTo(b []byte, to net.Addr) (int, error) {
	if m.left <= 0 {
		return len(b), nil
	}
	m.left--
	return m.PacketConn.WriteTo(b, to)
}

// forgedCertificate names the plant's CLM and its PKG; only the pairing shows
// that the signature is another PKG's.
func forgedCertificate(t *testing.T, p *plant) tls.Certificate {
	t.Helper()
	foreign := value[*ibc.MasterSecret](t)(ibc.Setup(rand.Reader, 1))
	id := value[ibc.Identity](t)(ibc.NewIdentity(ibc.RoleCLM, clmName, 1, 1))
	key := value[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	spki := value[[]byte](t)(x509.MarshalPKIXPublicKey(key.Public()))
	b := value[*coaplink.Binding](t)(coaplink.NewBinding(value[*ibc.PrivateKey](t)(foreign.Extract(id)), rand.Reader, sha256.Sum256(spki), nil))
	b.ParamsID = p.master.Params().ID()
	extension := value[[]byte](t)(b.Marshal())
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Now().AddDate(1, 0, 0),
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 7250, 1}, Value: extension}},
	}
	der := value[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// flood is one way to keep a device busy.
type flood struct {
	name string
	run  func(context.Context, *attacker)
}

func floods(t *testing.T, forged tls.Certificate) []flood {
	noise := make([]byte, 4096)
	_, _ = rand.Read(noise)
	hello := firstFlight(t, forged)
	oversized := append(slices.Clone(hello), noise[:2000]...)
	return []flood{
		{"none", func(ctx context.Context, _ *attacker) { <-ctx.Done() }},
		{"garbage", func(ctx context.Context, a *attacker) {
			n := 0
			a.datagrams(ctx, func() []byte { n = (n + 61) % 2000; return noise[n : n+1+n%900] })
		}},
		{"oversized records", func(ctx context.Context, a *attacker) {
			a.datagrams(ctx, func() []byte { return oversized })
		}},
		{"spoofed first flights", func(ctx context.Context, a *attacker) {
			a.datagrams(ctx, func() []byte { return hello })
		}},
		{"half-open handshakes", func(ctx context.Context, a *attacker) { a.handshakes(ctx, 2, a.forged) }},
		{"forged certificates", func(ctx context.Context, a *attacker) { a.handshakes(ctx, 1000, a.forged) }},
	}
}

// firstFlight is a ClientHello as stock software sends it.
func firstFlight(t *testing.T, certificate tls.Certificate) []byte {
	t.Helper()
	sink := value[net.PacketConn](t)(net.ListenPacket("udp", "127.0.0.1:0"))
	defer func() { _ = sink.Close() }()
	a := &attacker{to: sink.LocalAddr().(*net.UDPAddr)}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { a.handshake(ctx, 1, certificate) })
	if err := sink.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 2048)
	n, _, err := sink.ReadFrom(buffer)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	wg.Wait()
	return buffer[:n]
}

// TestFloods: whatever strangers send, the device goes on serving the CLM that
// its bundle names by address, on this machine and on an emulated Raspberry Pi.
func TestFloods(t *testing.T) {
	for _, machine := range []struct {
		name, emulator string
		env            []string
	}{
		{"this machine", "", nil},
		{"armv7", "qemu-arm-static", []string{"GOARCH=arm", "GOARM=7"}},
	} {
		t.Run(machine.name, func(t *testing.T) {
			var argv []string
			if machine.emulator != "" {
				argv = append(argv, testpeer.Look(t, machine.emulator))
			}
			argv = append(argv, buildAgent(t, machine.env...))
			p := newPlant(t)
			p.addresses = []string{"127.0.0.1:1"}
			n := p.provision("plc-1", fleet.ECDSAP256)
			device := value[*process](t)(startAgent(n.dir, "127.0.0.1:0", argv...))
			defer func() {
				if err := device.signal(syscall.SIGTERM); err != nil {
					t.Errorf("%v\n%s", err, device.log())
				}
			}()
			p.commission(map[string]string{n.name: device.addr})
			p.mustRun(n)
			forged := forgedCertificate(t, p)
			for _, f := range floods(t, forged) {
				a := &attacker{to: value[*net.UDPAddr](t)(net.ResolveUDPAddr("udp", device.addr)), forged: forged}
				ctx, cancel := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				wg.Go(func() { f.run(ctx, a) })
				time.Sleep(300 * time.Millisecond)
				var took []time.Duration
				began := time.Now()
				for range 5 {
					each := time.Now()
					p.mustRun(n)
					took = append(took, time.Since(each))
				}
				rate := float64(a.sent.Load()) / (time.Since(began) + 300*time.Millisecond).Seconds()
				cancel()
				wg.Wait()
				slices.Sort(took)
				t.Logf("%-22s %5.0f a second: enrolments take %s, at most %s; %.1f MB resident",
					f.name, rate, took[2].Round(time.Millisecond), took[4].Round(time.Millisecond), float64(device.status(t, "VmRSS"))/1e6)
			}
		})
	}
}

// mustRun renews a device in another process.
func (p *plant) mustRun(n *node) {
	p.t.Helper()
	if result := p.run(n.name); result.Outcome != enrol.OutcomeRenewed {
		p.t.Fatalf("%s: %s: %v", n.name, result.Outcome, result.Err)
	}
}
