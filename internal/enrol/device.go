package enrol

import (
	"context"
	"time"

	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Dialer reaches devices. Dial returns a channel on which both sides have
// proved their identities, or an error that wraps ErrUnreachable or
// ErrIdentity. The device may prove a later (epoch, generation) of its name
// than the inventory has, never an earlier one.
type Dialer interface {
	Dial(ctx context.Context, d fleet.Device) (Device, error)
}

// Device is an authenticated channel to one device; every call may be repeated
// with the same arguments. Calls return a *DeviceError if the device refused,
// and an error that wraps ErrUnreachable if no answer came.
type Device interface {
	// Identity is the one that the device proved.
	Identity() ibc.Identity
	// RequestCSR is the paper's CSR_generation_request. The device makes a
	// fresh key pair and answers with a PKCS#10 (RFC 2986) in DER, signed by
	// it; the same request again gives the same CSR.
	RequestCSR(ctx context.Context, req CSRRequest) ([]byte, error)
	// VerifyCertificate is the paper's verify_certificate. The device checks
	// the certificate against its trust anchor and its own private key, stages
	// it durably and signs the possession and statement messages.
	VerifyCertificate(ctx context.Context, req VerifyRequest) (VerifyResponse, error)
	// Activate switches the device to the staged certificate and runs its
	// reload hook. Unless confirmed within that time (0: final at once) the
	// device restores the previous pair.
	Activate(ctx context.Context, id ID, certificate [32]byte, confirmWithin time.Duration) error
	// Confirm makes the active certificate final.
	Confirm(ctx context.Context, id ID, certificate [32]byte) error
	// Rollback restores the previous pair.
	Rollback(ctx context.Context, id ID, certificate [32]byte) error
	// DeliverBundle hands over a sealed bundle of a later epoch or generation;
	// the one that was accepted last is accepted again.
	DeliverBundle(ctx context.Context, sealed []byte) error
	// DeliverAnchors changes the device's trust anchors.
	DeliverAnchors(ctx context.Context, change AnchorChange) error
	// Status reads what the device says of itself.
	Status(ctx context.Context) (DeviceStatus, error)
	// Close ends the channel.
	Close() error
}

// CSRRequest asks a device for a key pair and a CSR.
type CSRRequest struct {
	Enrolment   ID
	CA          []byte   // the CA's trust anchor certificate, DER; nil if only its hash is sent
	CAHash      [32]byte // SHA-256 of it
	Key         fleet.KeyAlgorithm
	Enclosed    bool              // Subject and SANs are to be used, even if one is empty
	Subject     []fleet.Attribute // nil with Enclosed false: as configured on the device
	SANs        []fleet.Name
	KeyUsage    []string  // fleet.KeyUsages
	ExtKeyUsage []string  // fleet.ExtKeyUsages
	Challenge   []byte    // challengePassword (RFC 2985 section 5.4.1); nil if the CA wants none
	Time        time.Time // the CLM's clock; a hint, and no part of the request's identity
}

// VerifyRequest hands a device the certificate that was issued for its CSR.
type VerifyRequest struct {
	Enrolment    ID
	Nonce        [NonceSize]byte
	Certificates [][]byte // DER, the device's own and its chain, at most MaxChain; in any order on arrival
}

// AnchorChange is one of the two ways to change a device's trust anchors.
type AnchorChange struct {
	Statement   []byte // of the PKG, kind anchor: the whole set
	CrossSigned []byte // a new root, DER, cross-signed by a present one: one more
}

// VerifyResponse is a device's proof; see Receipt.
type VerifyResponse struct {
	Certificate [32]byte // SHA-256 of the certificate that was verified
	Possession  []byte
	Statement   []byte
}

// MaxChain bounds the certificates in one answer of a CA.
const MaxChain = 8

// ClockState is what a device knows of the time.
type ClockState string

// A device's clock is behind when it shows a time before its lower bound, the
// latest NotBefore among certificates that it verified.
const (
	ClockPlausible ClockState = "plausible"
	ClockBehind    ClockState = "behind"
)

// DeviceStatus is what a device says of itself.
type DeviceStatus struct {
	Version      string // of the agent
	Identity     ibc.Identity
	Active       *DeviceCertificate
	Staged       *DeviceCertificate
	Enrolment    *ID    // of the pending slot, or of the active certificate if there is none
	Unconfirmed  bool   // the active certificate awaits its confirmation
	LastError    string // in words; "" if none
	Clock        ClockState
	Time         time.Time     // the device's clock
	Anchors      [][32]byte    // SHA-256 of its trust anchors
	AnchorSerial uint64        // of the anchor statement accepted last; 0: none
	Endpoint     string        // host:port where TLS serves the active certificate; "": none is named
	KeyStore     string        // where private keys live, "file" or "tpm"; "": not said
	RolledBack   *[32]byte     // SHA-256 of the certificate given up since the last activation, nil if none
	KeyAndCSR    time.Duration // how long the last key and CSR took it
	Verification time.Duration // how long the last verification took it
}

// DeviceCertificate is a certificate as a device reports it.
type DeviceCertificate struct {
	Serial   string // hex of its bytes, lower case
	SHA256   [32]byte
	NotAfter time.Time
	Expired  bool // by the device's clock or its lower bound
}
