package bundle

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Hash is a SHA-256, in JSON 64 lower-case hex digits.
type Hash [32]byte

// String returns the hex digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText implements encoding.TextMarshaler.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; errors wrap ErrFormat.
func (h *Hash) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(h) || hex.EncodeToString(b) != string(text) {
		return fmt.Errorf("%w: %.70q is not a SHA-256 in lower-case hex", ErrFormat, text)
	}
	*h = Hash(b)
	return nil
}

// Peer is a Certificate Lifecycle Management (CLM) name that a device listens
// to, with the earliest (epoch, generation) of it that it accepts: the floor.
type Peer struct {
	Name       string `json:"name"`
	Epoch      uint32 `json:"epoch"`
	Generation uint32 `json:"generation"`
}

// Bundle is what one identity gets from its PKG.
type Bundle struct {
	Identity     ibc.Identity
	Params       *ibc.Params
	Key          *ibc.PrivateKey // d
	Peers        []Peer          // of a device: 1 to MaxPeers; of a CLM: none
	Names        []fleet.Name    // what a device may sign a CSR for; at least one
	RecoveryHash Hash            // of the PKG's recovery key
	Address      string          // host:port of this endpoint; "" if not known
	CLMAddresses []string        // host:port of the CLMs that are known
	Anchors      [][]byte        // DER certificates; empty: the CA of the first enrolment
	Recipient    Hash            // of the intended recipient

	// Epochs leads from the parameters of earlier epochs to Params, for those
	// who have an earlier bundle; at most MaxEpochs. It is no part of what is
	// signed with the bundle: each statement was signed by the master secret of
	// the epoch before.
	Epochs []ibc.Succession

	// Signed is the SHA-256 of the payload that was opened, as the PKG's ledger
	// records it; zero of a bundle that was not opened.
	Signed Hash
}

// payload is the signed part, in the order in which it is encoded.
type payload struct {
	Version      int          `json:"version"`
	Identity     ibc.Identity `json:"identity"`
	Params       *ibc.Params  `json:"params"`
	Peers        []Peer       `json:"peers,omitempty"`
	Names        []fleet.Name `json:"names,omitempty"`
	RecoveryHash Hash         `json:"recovery_sha256"`
	Address      string       `json:"address,omitempty"`
	CLMAddresses []string     `json:"clm_addresses,omitempty"`
	Anchors      [][]byte     `json:"anchors,omitempty"`
	Recipient    Hash         `json:"recipient_sha256"`
}

// Payload returns the bytes that the PKG signs: everything but the key. Equal
// bundles have equal payloads.
func (b *Bundle) Payload() ([]byte, error) {
	if err := b.Validate(); err != nil {
		return nil, err
	}
	return json.Marshal(payload{
		Version, b.Identity, b.Params, b.Peers, b.Names, b.RecoveryHash,
		b.Address, b.CLMAddresses, b.Anchors, b.Recipient,
	})
}

// ParsePayload parses what the PKG shall sign, or has signed; it checks no
// signature. It must be exactly what Payload returns, so that nothing in it is
// signed unseen. Errors wrap ErrFormat or ErrVersion.
func ParsePayload(data []byte) (*Bundle, error) {
	b, err := parsePayload(data)
	if err != nil {
		return nil, err
	}
	if again, err := b.Payload(); err != nil || !bytes.Equal(again, data) {
		return nil, fmt.Errorf("payload of %s: %w", b.Identity, errors.Join(errNotCanonical, err))
	}
	return b, nil
}

// errNotCanonical is why something is not signed that could be read.
var errNotCanonical = fmt.Errorf("%w: it is not as this release writes it", ErrFormat)

// parsePayload is the inverse of Payload; it checks no signature.
func parsePayload(data []byte) (*Bundle, error) {
	var p payload
	if err := decode(data, &p); err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	b := &Bundle{
		Identity: p.Identity, Params: p.Params, Peers: p.Peers, Names: p.Names, RecoveryHash: p.RecoveryHash,
		Address: p.Address, CLMAddresses: p.CLMAddresses, Anchors: p.Anchors, Recipient: p.Recipient,
	}
	if err := b.Validate(); err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	return b, nil
}

// Validate reports, as an error that wraps ErrFormat, what is wrong with the
// public part of b.
func (b *Bundle) Validate() error {
	switch {
	case b.Params == nil:
		return fmt.Errorf("%w: no parameters", ErrFormat)
	case b.Identity.Validate() != nil:
		return fmt.Errorf("%w: %w", ErrFormat, b.Identity.Validate())
	case b.Identity.Epoch != b.Params.Epoch():
		return fmt.Errorf("%w: %w: identity %s, parameters of epoch %d", ErrFormat, ibc.ErrEpoch, b.Identity, b.Params.Epoch())
	case b.Identity.Role == ibc.RoleCLM && len(b.Peers)+len(b.Names) > 0:
		return fmt.Errorf("%w: the bundle of a CLM lists peers or certificate names", ErrFormat)
	case b.Identity.Role == ibc.RoleDevice && (len(b.Peers) < 1 || len(b.Peers) > MaxPeers):
		return fmt.Errorf("%w: %d CLM names, a device has 1 to %d", ErrFormat, len(b.Peers), MaxPeers)
	case b.Identity.Role == ibc.RoleDevice && (len(b.Names) < 1 || len(b.Names) > fleet.MaxNames):
		return fmt.Errorf("%w: %d certificate names, a device has 1 to %d", ErrFormat, len(b.Names), fleet.MaxNames)
	case len(b.CLMAddresses) > MaxPeers:
		return fmt.Errorf("%w: %d CLM addresses, at most %d are allowed", ErrFormat, len(b.CLMAddresses), MaxPeers)
	case len(b.Anchors) > MaxAnchors:
		return fmt.Errorf("%w: %d trust anchors, at most %d are allowed", ErrFormat, len(b.Anchors), MaxAnchors)
	}
	for i, p := range b.Peers {
		peer := ibc.Identity{Role: ibc.RoleCLM, Name: p.Name, Epoch: p.Epoch, Generation: p.Generation}
		if err := peer.Validate(); err != nil {
			return fmt.Errorf("%w: CLM: %w", ErrFormat, err)
		}
		if slices.ContainsFunc(b.Peers[:i], func(q Peer) bool { return q.Name == p.Name }) {
			return fmt.Errorf("%w: CLM %s is listed twice", ErrFormat, p.Name)
		}
	}
	for _, n := range b.Names {
		if err := n.Validate(); err != nil {
			return fmt.Errorf("%w: %w", ErrFormat, err)
		}
	}
	for _, a := range b.CLMAddresses {
		if err := ValidateAddress(a); err != nil {
			return err
		}
	}
	for _, der := range b.Anchors {
		if len(der) > MaxAnchorSize {
			return fmt.Errorf("%w: a trust anchor of %d bytes", ErrFormat, len(der))
		}
		if _, err := x509.ParseCertificate(der); err != nil {
			return fmt.Errorf("%w: trust anchor: %w", ErrFormat, err)
		}
	}
	if b.Address == "" {
		return nil
	}
	return ValidateAddress(b.Address)
}

// HeldTo reports, as an error that wraps ErrParams, that the bundle's
// parameters are not those of the PKG with this params_id.
func (b *Bundle) HeldTo(paramsID [ibc.ParamsIDSize]byte) error {
	if got := b.Params.ID(); got != paramsID {
		return fmt.Errorf("bundle of %s is %w: its params_id is %x, expected %x", b.Identity, ErrParams, got, paramsID)
	}
	return nil
}

// Follows reports, as an error that wraps ErrParams, that the bundle is neither
// of the PKG and epoch with these parameters, nor of a later epoch to which its
// epoch statements lead from there.
func (b *Bundle) Follows(known *ibc.Params) error {
	if b.Params.Epoch() <= known.Epoch() {
		if b.Params.Equal(known) {
			return nil
		}
		return b.HeldTo(known.ID())
	}
	if err := known.Follow(b.Epochs, b.Params); err != nil {
		return fmt.Errorf("bundle of %s is %w: %w", b.Identity, ErrParams, err)
	}
	return nil
}

// ValidateAddress checks a host:port, where host is a host name or an IP
// address and port a number from 1 to 65535. Errors wrap ErrFormat.
func ValidateAddress(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil || len(s) > MaxAddressLen {
		return fmt.Errorf("%w: the address %.80q is not host:port", ErrFormat, s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return fmt.Errorf("%w: the address %.80q has no port from 1 to 65535", ErrFormat, s)
	}
	if net.ParseIP(host) == nil && !fleet.IsHostName(host) {
		return fmt.Errorf("%w: the address %.80q names no host", ErrFormat, s)
	}
	return nil
}
