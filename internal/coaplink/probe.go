package coaplink

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	"github.com/pion/dtls/v3"
	dtlsnet "github.com/pion/dtls/v3/pkg/net"
	"github.com/pion/dtls/v3/pkg/protocol/alert"
	"golang.org/x/sys/unix"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Verdict is what a probe learnt about an address.
type Verdict string

// The verdicts.
const (
	Silent   Verdict = "silent"   // nobody answered
	Stranger Verdict = "stranger" // somebody who claims no identity of this PKG
	Impostor Verdict = "impostor" // somebody who claims one, and did not prove it
	Proven   Verdict = "proven"   // a device of this PKG
)

// Probed is who is at an address.
type Probed struct {
	Address  string // IP address and port
	Verdict  Verdict
	Identity ibc.Identity // that was claimed; zero: none
	// Key is the SHA-256 of the handshake key, SubjectPublicKeyInfo, which a
	// device makes anew at each start and shows to everybody: one key at two
	// addresses is one device, two keys with one identity are two. Zero unless
	// Proven.
	Key [32]byte
	// Refuses: the device proved itself and accepts this CLM not, as far as an
	// alert can be believed.
	Refuses bool
	// Closed: the host is there and nobody listens at the port, as an ICMP
	// message said, which nobody can prove. NoRoute: there is no way to the host.
	Closed  bool
	NoRoute bool
	Reason  error // why it is not Proven
}

// Probe finds out who is at an address (IP address and port) by a handshake
// that accepts any device of the Dialer's parameters. It asks nothing else, and
// closes the channel at once. It waits for an answer until ctx ends. The error
// is of this side: no probe was made.
func (d *Dialer) Probe(ctx context.Context, address string) (Probed, error) {
	p := Probed{Address: address, Verdict: Silent}
	clientRandom, err := newHelloRandom(d.Random)
	if err != nil {
		return p, err
	}
	socket, err := (&net.Dialer{}).DialContext(ctx, "udp", address)
	if err != nil {
		p.Reason, p.NoRoute = err, noRoute(err)
		return p, ctx.Err()
	}
	heard := &hearing{Conn: socket}
	v := &anyVerifier{deviceVerifier: deviceVerifier{params: d.Params, clientRandom: clientRandom}}
	conn, err := dtls.ClientWithOptions(dtlsnet.PacketConnFromConn(heard), socket.RemoteAddr(),
		d.options(&v.deviceVerifier, d.Credential, dtls.WithVerifyPeerCertificate(v.verifyPeer))...)
	if err != nil {
		return p, errors.Join(err, socket.Close())
	}
	err = conn.HandshakeContext(ctx)
	_ = conn.Close()
	p.Identity = v.claimed
	switch {
	case v.refusal != nil && v.stranger:
		p.Verdict, p.Reason = Stranger, v.refusal
	case v.refusal != nil:
		p.Verdict, p.Reason = Impostor, v.refusal
	case v.got != ibc.Identity{}:
		// Its signature over this handshake was checked before its certificate.
		p.Verdict, p.Key, p.Refuses = Proven, v.key, isAlert(err, alert.BadCertificate)
	case err == nil:
		return p, fmt.Errorf("%w: %s completed a handshake without a certificate", enrol.ErrIdentity, address)
	case heard.answered.Load():
		p.Verdict, p.Reason = Stranger, fmt.Errorf("it does not speak the protocol: %w", err)
	default:
		p.Reason, p.Closed, p.NoRoute = err, heard.closed.Load(), heard.noRoute.Load()
	}
	return p, nil
}

// hearing notes what came back, if anything.
type hearing struct {
	net.Conn
	answered, closed, noRoute atomic.Bool
}

// Read implements net.Conn.
func (h *hearing) Read(b []byte) (int, error) {
	n, err := h.Conn.Read(b)
	if n > 0 {
		h.answered.Store(true)
	}
	h.note(err)
	return n, err
}

// Write implements net.Conn.
func (h *hearing) Write(b []byte) (int, error) {
	n, err := h.Conn.Write(b)
	h.note(err)
	return n, err
}

// note takes down what ICMP said, which the socket tells at the next call.
func (h *hearing) note(err error) {
	if errors.Is(err, unix.ECONNREFUSED) {
		h.closed.Store(true)
	}
	if noRoute(err) {
		h.noRoute.Store(true)
	}
}

func noRoute(err error) bool {
	return errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETDOWN)
}

// anyVerifier judges a server that may be any device.
type anyVerifier struct {
	deviceVerifier

	claimed  ibc.Identity
	key      [32]byte
	stranger bool // claims no identity of these parameters
}

func (v *anyVerifier) verifyPeer(certificates [][]byte, _ [][]*x509.Certificate) error {
	v.refusal = v.judge(certificates)
	return v.refusal
}

func (v *anyVerifier) judge(certificates [][]byte) error {
	v.stranger = true
	p, err := parsePresented(certificates)
	if err != nil {
		return err
	}
	v.claimed = p.binding.Identity
	params, err := p.findParams(v.params)
	if err != nil {
		return err
	}
	v.stranger = false
	if v.claimed.Role != ibc.RoleDevice {
		return fmt.Errorf("%w: %s is no device", ErrBinding, v.claimed)
	}
	if err := p.verifyDevice(params, v.clientRandom); err != nil {
		return err
	}
	v.verified, v.got, v.key = p.sum, v.claimed, p.spki
	return nil
}
