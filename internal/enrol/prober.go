package enrol

import (
	"context"
	"errors"

	"github.com/edgeclm/edgeclm/internal/fleet"
)

// Prober looks at what a device's TLS server presents to its clients. One that
// is asked may try several times: a server needs time to reload.
type Prober interface {
	// Probe returns nil once a handshake has shown that the server presents
	// the certificate and holds its private key. An error wraps ErrNotServed
	// if it did not in the time that the prober gives it, and ErrNotProbed if
	// the endpoint is none that may be connected to; nothing was sent then.
	Probe(ctx context.Context, p Probe) error
}

// Probe is one question to a Prober.
type Probe struct {
	Device      fleet.Device
	Endpoint    string   // host:port; without host at the device's own address
	Vouched     bool     // the operator named the endpoint, not the device
	Names       []string // the DNS names of the certificate
	Certificate [32]byte
}

// Errors of a Prober.
var (
	// ErrNotServed: the endpoint does not serve the certificate.
	ErrNotServed = errors.New("the certificate is not served")
	// ErrNotProbed: the endpoint must not be connected to.
	ErrNotProbed = errors.New("endpoint not probed")
)
