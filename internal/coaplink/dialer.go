package coaplink

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/pion/dtls/v3"
	dtlsnet "github.com/pion/dtls/v3/pkg/net"
	"github.com/pion/dtls/v3/pkg/protocol/alert"
	"github.com/pion/dtls/v3/pkg/protocol/handshake"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Defaults of Timeouts.
const (
	DefaultHandshakeTimeout = 30 * time.Second
	DefaultExchangeTimeout  = 4 * time.Minute
	DefaultSilenceTimeout   = 30 * time.Second
)

// attemptTimeout bounds one handshake; a device under attack may have dropped
// its half of it, which a fresh one does not notice.
const attemptTimeout = 10 * time.Second

// Timeouts bound what a device may keep us waiting for; zero values mean the
// defaults. A context that ends earlier wins.
type Timeouts struct {
	Handshake time.Duration // until both sides are authenticated, all attempts together
	Exchange  time.Duration // one call on a Device, block transfers and the device's work included
	Silence   time.Duration // without a sign of life, busy or not, before the device counts as gone
}

func (t Timeouts) withDefaults() Timeouts {
	return Timeouts{
		Handshake: orDefault(t.Handshake, DefaultHandshakeTimeout),
		Exchange:  orDefault(t.Exchange, DefaultExchangeTimeout),
		Silence:   orDefault(t.Silence, DefaultSilenceTimeout),
	}
}

// Dialer is the CLM's end; it implements enrol.Dialer.
type Dialer struct {
	Credential *Credential
	Earlier    []*Credential // of the same CLM in earlier epochs, as long as a device is left there
	Params     []*ibc.Params // that verify devices, one for each epoch in use
	Resolver   Resolver      // of host names; nil: the system's
	Random     io.Reader
	Timeouts   Timeouts
}

var (
	_ enrol.Dialer  = (*Dialer)(nil)
	_ enrol.Boatman = (*Dialer)(nil)
)

// dialAddress connects to an IP address and port, see Dial.
func (d *Dialer) dialAddress(ctx context.Context, device fleet.Device) (*link, error) {
	untried := append([]*Credential{d.Credential}, d.Earlier...)
	epoch := device.Identity.Epoch
	for {
		at := choose(untried, epoch)
		link, err := d.dial(ctx, device, untried[at])
		if err == nil {
			return link, nil
		}
		var refused *refusedCredential
		untried = slices.Delete(untried, at, at+1)
		if !errors.As(err, &refused) || len(untried) == 0 {
			return nil, err
		}
		epoch = refused.device.Epoch
	}
}

// choose picks the credential for a device of an epoch: of that epoch or the
// latest before, which such a device accepts if it accepts any; else the
// earliest.
func choose(credentials []*Credential, epoch uint32) int {
	best := 0
	for i, c := range credentials {
		e, b := c.identity.Epoch, credentials[best].identity.Epoch
		if e <= epoch && (b > epoch || e > b) || e > epoch && b > epoch && e < b {
			best = i
		}
	}
	return best
}

// refusedCredential is a refusal by the device, as far as an alert can be
// believed.
type refusedCredential struct {
	credential ibc.Identity
	device     ibc.Identity // that it proved, or else the one that was wanted
	address    string
}

func (e *refusedCredential) Error() string {
	if e.credential == (ibc.Identity{}) {
		return fmt.Sprintf("%v: %s at %s takes lifeboats from nobody: its agent is of an earlier release", enrol.ErrIdentity, e.device, e.address)
	}
	return fmt.Sprintf("%v: %s at %s does not accept %s", enrol.ErrIdentity, e.device, e.address, e.credential)
}

func (e *refusedCredential) Unwrap() error { return enrol.ErrIdentity }

// dial is Dial with one credential.
func (d *Dialer) dial(ctx context.Context, device fleet.Device, credential *Credential) (*link, error) {
	pause := 50 * time.Millisecond
	var from net.Addr // nil: any port
	for {
		link, local, err := d.attempt(ctx, device, credential, from)
		if err == nil {
			return link, nil
		}
		if !errors.Is(err, errAgain) || ctx.Err() != nil {
			return nil, err
		}
		// A device that has forgotten us remembers, under attack, that this very
		// port is ours. One that has not could take a new handshake from the same
		// port for the old one.
		from = nil
		if isAlert(err, alert.InternalError) {
			from = local
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(pause):
		}
		pause = min(2*pause, 2*time.Second)
	}
}

// errAgain marks a failed handshake that a fresh one may not repeat.
var errAgain = errors.New("the handshake did not complete")

// attempt does one handshake on a socket of its own and returns its address too.
func (d *Dialer) attempt(ctx context.Context, device fleet.Device, credential *Credential, from net.Addr) (*link, net.Addr, error) {
	unreachable := func(err error) error {
		return fmt.Errorf("%w: %s at %s: %w", enrol.ErrUnreachable, device.Identity, device.Address, err)
	}
	clientRandom, err := newHelloRandom(d.Random)
	if err != nil {
		return nil, nil, err
	}
	// A connected socket takes datagrams of this peer alone and hears of ICMP errors.
	socket, err := (&net.Dialer{LocalAddr: from}).DialContext(ctx, "udp", device.Address)
	if err != nil {
		return nil, nil, unreachable(err)
	}
	v := &deviceVerifier{params: d.Params, want: device.Identity, clientRandom: clientRandom, anybody: credential.stranger()}
	conn, err := dtls.ClientWithOptions(dtlsnet.PacketConnFromConn(socket), socket.RemoteAddr(), d.options(v, credential)...)
	if err != nil {
		_ = socket.Close()
		return nil, nil, fmt.Errorf("dial %s: %w", device.Identity, err)
	}
	attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	if err := conn.HandshakeContext(attempt); err != nil {
		_ = conn.Close()
		var network *net.OpError
		switch {
		case v.refusal != nil:
			return nil, nil, fmt.Errorf("%w: wanted %s at %s: %w", enrol.ErrIdentity, device.Identity, device.Address, v.refusal)
		case isAlert(err, alert.BadCertificate):
			return nil, nil, &refusedCredential{credential: credential.identity, device: orDefault(v.got, device.Identity), address: device.Address}
		case errors.As(err, &network):
			return nil, nil, unreachable(network) // port or host unreachable
		}
		return nil, socket.LocalAddr(), unreachable(fmt.Errorf("%w: %w", errAgain, err))
	}
	return newLink(conn, v.got, device.Address, d.Timeouts.withDefaults()), socket.LocalAddr(), nil
}

// options are those of one handshake; later ones win.
func (d *Dialer) options(v *deviceVerifier, credential *Credential, more ...dtls.ClientOption) []dtls.ClientOption {
	opts := []dtls.ClientOption{
		dtls.WithCertificates(credential.tls()),
		dtls.WithHelloRandomBytesGenerator(func() [handshake.RandomBytesLength]byte { return v.clientRandom }),
		dtls.WithVerifyPeerCertificate(v.verifyPeer),
		dtls.WithVerifyConnection(v.verifyConnection),
		dtls.WithConnectionIDGenerator(dtls.OnlySendCIDGenerator()),
	}
	for _, o := range dtlsProfile() {
		opts = append(opts, o)
	}
	return append(opts, more...)
}

// deviceVerifier judges the server of one handshake.
type deviceVerifier struct {
	params       []*ibc.Params
	want         ibc.Identity
	clientRandom [ContextSize]byte

	anybody bool // whoever answers will do

	verified [32]byte // SHA-256 of the certificate
	got      ibc.Identity
	refusal  error
}

func (v *deviceVerifier) verifyPeer(certificates [][]byte, _ [][]*x509.Certificate) error {
	if v.anybody && len(certificates) == 1 {
		v.verified, v.got = sha256.Sum256(certificates[0]), v.want
		return nil
	}
	p, err := acceptDevice(certificates, v.params, v.want, v.clientRandom)
	if err != nil {
		v.refusal = err
		return err
	}
	v.verified, v.got = p.sum, p.binding.Identity
	return nil
}

// verifyConnection runs even where the library skips verifyPeer.
func (v *deviceVerifier) verifyConnection(s *dtls.State) error {
	if err := sameCertificate(s, v.verified); err != nil {
		v.refusal = err
		return err
	}
	return nil
}

// isAlert reports whether err is that alert from the peer. The library keeps
// its type of alert errors to itself. An alert during a handshake is not
// authenticated: nothing final may be concluded from it.
func isAlert(err error, description alert.Description) bool {
	var a interface {
		error
		IsFatalOrCloseNotify() bool
		String() string
	}
	return errors.As(err, &a) && strings.HasSuffix(a.String(), description.String())
}

func orDefault[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}
