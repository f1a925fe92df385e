package tlsprobe

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
)

// Defaults of a Prober.
const (
	// DefaultWithin covers a server that restarts rather than reloads.
	DefaultWithin = 30 * time.Second
	// DefaultAttempt is for one handshake with a device on a bad link.
	DefaultAttempt = 10 * time.Second
	// DefaultPause is the first wait between two handshakes; it doubles up to
	// eight times that.
	DefaultPause = 500 * time.Millisecond
)

// maxRead bounds what one handshake may send us in bytes: certificates of a
// message are bounded by crypto/tls at 256 KiB, alerts and tickets are not.
const maxRead = 512 << 10

// Resolver looks up the addresses of a host; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Prober makes TLS handshakes. The zero value has the defaults, and connects
// to nothing but the devices' own addresses. It is safe for concurrent use.
type Prober struct {
	Within   time.Duration // for all handshakes of one probe; 0: DefaultWithin
	Attempt  time.Duration // for one; 0: DefaultAttempt
	Tries    int           // at most so many; 0: as many as there is time for
	Pause    time.Duration // first wait between two; 0: DefaultPause
	Allowed  Allowed
	Resolver Resolver     // nil: net.DefaultResolver
	Log      *slog.Logger // nil: none
}

var _ enrol.Prober = (*Prober)(nil)

func (p *Prober) resolver() Resolver {
	if p.Resolver == nil {
		return net.DefaultResolver
	}
	return p.Resolver
}

func (p *Prober) log() *slog.Logger {
	if p.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return p.Log
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}

// Probe implements enrol.Prober. What it saw last is in the error: another
// certificate, or why there was none.
func (p *Prober) Probe(ctx context.Context, q enrol.Probe) error {
	within := orDefault(p.Within, DefaultWithin)
	bounded, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	pause := orDefault(p.Pause, DefaultPause)
	longest := 8 * pause
	var last error // what was seen before the time was up
	for tries := 1; ; tries++ {
		err := p.once(bounded, q)
		if err == nil || errors.Is(err, enrol.ErrNotProbed) {
			return err
		}
		if last == nil || bounded.Err() == nil {
			last = err
		}
		p.log().Debug("probe", "device", q.Device.Name, "endpoint", q.Endpoint, "try", tries, "error", err)
		if tries != p.Tries {
			wait(bounded, pause)
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case tries == p.Tries, bounded.Err() != nil:
			return fmt.Errorf("%w (%d handshakes): %w", enrol.ErrNotServed, tries, last)
		}
		pause = min(2*pause, longest)
	}
}

func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// once tries the addresses of an endpoint, one handshake each.
func (p *Prober) once(ctx context.Context, q enrol.Probe) error {
	t, err := p.resolve(ctx, q)
	if err != nil {
		return err
	}
	for _, address := range t.addresses {
		var leaf []byte
		leaf, err = p.handshake(ctx, address, t.name)
		if err == nil && sha256.Sum256(leaf) == q.Certificate {
			return nil
		}
		if err == nil {
			err = fmt.Errorf("%s presents %s", address, describe(leaf))
		}
	}
	return err
}

// describe names a certificate by what a person can look up. The names in it
// are left out: it may be anybody's.
func describe(der []byte) string {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return "a certificate that does not parse"
	}
	return fmt.Sprintf("certificate %s, valid until %s", enrol.Describe(c).Serial, c.NotAfter.UTC().Format(time.RFC3339))
}

// handshake connects once and returns the leaf certificate for which the
// server has proved to hold the key.
func (p *Prober) handshake(ctx context.Context, address, name string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, orDefault(p.Attempt, DefaultAttempt))
	defer cancel()
	var dialer net.Dialer
	raw, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = raw.Close() }()
	var (
		leaf  []byte
		asked bool // for a client certificate, after the server's own signature was checked
	)
	conn := tls.Client(&boundedConn{Conn: raw, left: maxRead}, &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: name,
		// The question is whether this very certificate is served, which its
		// SHA-256 answers; whom it names, who issued it and whether it has
		// expired by our clock, which may be wrong, is not the question.
		InsecureSkipVerify: true, //nolint:gosec // see above
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) > 0 {
				leaf = s.PeerCertificates[0].Raw
			}
			return nil
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			asked = true
			return &tls.Certificate{}, nil
		},
	})
	err = conn.HandshakeContext(ctx)
	if len(leaf) > 0 && (err == nil || asked) {
		return leaf, nil
	}
	if err == nil {
		err = errors.New("the server presents no certificate")
	}
	return nil, fmt.Errorf("TLS handshake with %s: %w", address, err)
}

// boundedConn reads no more than a bound.
type boundedConn struct {
	net.Conn
	left int
}

// Read implements net.Conn.
func (c *boundedConn) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.Conn.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}
