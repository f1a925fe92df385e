package coaplink

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/dtls/v3/pkg/protocol/handshake"
	"github.com/pion/logging"
)

// flightInterval is how long a side waits before it repeats a flight. It does
// not grow: at 30 % loss nearly every handshake succeeds within seconds, while
// doubling intervals lose some and take many seconds for others.
const flightInterval = 400 * time.Millisecond

// cidSize is the size in bytes of the connection IDs that a device gives out
// (RFC 9146). The CLM side asks for none: its socket is connected.
const cidSize = 8

// dtlsProfile is what both sides agree on.
func dtlsProfile() []dtls.Option {
	return []dtls.Option{
		dtls.WithCipherSuites(
			dtls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		),
		dtls.WithSignatureSchemes(tls.ECDSAWithP256AndSHA256),
		dtls.WithExtendedMasterSecret(dtls.RequireExtendedMasterSecret),
		dtls.WithFlightInterval(flightInterval),
		dtls.WithDisableRetransmitBackoff(true),
		// Without this the library wants a chain to a certificate authority. The
		// verifiers that each side adds take the place of that chain.
		dtls.WithInsecureSkipVerify(true),
		dtls.WithLoggerFactory(silent{}),
	}
}

// newHelloRandom draws the random bytes of a ClientHello.
func newHelloRandom(random io.Reader) ([handshake.RandomBytesLength]byte, error) {
	var b [handshake.RandomBytesLength]byte
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return b, fmt.Errorf("draw client random: %w", err)
	}
	return b, nil
}

// silent keeps the library's own messages out of the log: what matters reaches
// us as errors.
type silent struct{}

func (silent) NewLogger(string) logging.LeveledLogger { return silent{} }
func (silent) Trace(string)                           {}
func (silent) Tracef(string, ...any)                  {}
func (silent) Debug(string)                           {}
func (silent) Debugf(string, ...any)                  {}
func (silent) Info(string)                            {}
func (silent) Infof(string, ...any)                   {}
func (silent) Warn(string)                            {}
func (silent) Warnf(string, ...any)                   {}
func (silent) Error(string)                           {}
func (silent) Errorf(string, ...any)                  {}

// sameCertificate asserts that the connection is with the holder of the one
// certificate that was verified.
func sameCertificate(s *dtls.State, verified [32]byte) error {
	if len(s.PeerCertificates) != 1 || sha256.Sum256(s.PeerCertificates[0]) != verified {
		return fmt.Errorf("%w: the connection's certificate was not verified", ErrBinding)
	}
	return nil
}
