package ibc

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/cloudflare/circl/ecc/bls12381"
)

// Role says what an identity may do in the protocol.
type Role string

// The two roles of the system: the device that owns certificates, and the
// Certificate Lifecycle Management (CLM) side that obtains them on its behalf.
const (
	RoleDevice Role = "dev"
	RoleCLM    Role = "clm"
)

// ErrIdentity is wrapped by every refusal of an identity string or of its parts.
var ErrIdentity = errors.New("not a canonical identity")

const (
	identityPrefix = "edgeclm/v1/"
	maxNameLen     = 64
	maxNumber      = 1<<31 - 1
	// MaxIdentityLen is the length in bytes of the longest identity string.
	MaxIdentityLen = len(identityPrefix) + 3 + 1 + maxNameLen + len("/e2147483647.g2147483647")
)

// Identity is who a key belongs to. Its canonical ASCII form is
//
//	edgeclm/v1/<role>/<name>/e<epoch>.g<generation>
//
// Epoch says which master secret extracted the key, Generation which key of
// this identity it is; both run from 1 to 2^31-1. The zero Identity is invalid.
type Identity struct {
	Role       Role
	Name       string
	Epoch      uint32
	Generation uint32
}

// NewIdentity returns the identity of these parts, or an error that wraps
// ErrIdentity.
func NewIdentity(role Role, name string, epoch, generation uint32) (Identity, error) {
	id := Identity{Role: role, Name: name, Epoch: epoch, Generation: generation}
	return id, id.Validate()
}

// Validate reports, as an error that wraps ErrIdentity, why id has no
// canonical form; nil if it has one.
func (id Identity) Validate() error {
	if id.Role != RoleDevice && id.Role != RoleCLM {
		return fmt.Errorf("%w: role %q is neither dev nor clm", ErrIdentity, id.Role)
	}
	if err := ValidateName(id.Name); err != nil {
		return err
	}
	if id.Epoch < 1 || id.Epoch > maxNumber {
		return fmt.Errorf("%w: epoch %d is not in 1..%d", ErrIdentity, id.Epoch, maxNumber)
	}
	if id.Generation < 1 || id.Generation > maxNumber {
		return fmt.Errorf("%w: generation %d is not in 1..%d", ErrIdentity, id.Generation, maxNumber)
	}
	return nil
}

// ValidateName reports, as an error that wraps ErrIdentity, why name cannot be
// the name of an identity: it must match [a-z0-9][a-z0-9._:-]{0,63}.
func ValidateName(name string) error {
	if name == "" || len(name) > maxNameLen {
		return fmt.Errorf("%w: the name %.70q is not 1 to %d characters long", ErrIdentity, name, maxNameLen)
	}
	for i, c := range []byte(name) {
		alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("._:-", rune(c))) {
			return fmt.Errorf("%w: the name %q may hold a-z, 0-9 and, after the first, '.', '_', ':' and '-'", ErrIdentity, name)
		}
	}
	return nil
}

// ParseIdentity parses the canonical form, and only that: what is not
// canonical is refused with an error that wraps ErrIdentity, never normalised.
func ParseIdentity(s string) (Identity, error) {
	if len(s) > MaxIdentityLen {
		return Identity{}, fmt.Errorf("%w: %d bytes long", ErrIdentity, len(s))
	}
	rest, ok := strings.CutPrefix(s, identityPrefix)
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 3 {
		return Identity{}, fmt.Errorf("%w: %q is not edgeclm/v1/<role>/<name>/e<epoch>.g<generation>", ErrIdentity, s)
	}
	version, ok := strings.CutPrefix(parts[2], "e")
	epochText, generationText, ok2 := strings.Cut(version, ".g")
	if !ok || !ok2 {
		return Identity{}, fmt.Errorf("%w: %q does not end in e<epoch>.g<generation>", ErrIdentity, s)
	}
	epoch, err := parseNumber(epochText)
	if err != nil {
		return Identity{}, fmt.Errorf("epoch: %w", err)
	}
	generation, err := parseNumber(generationText)
	if err != nil {
		return Identity{}, fmt.Errorf("generation: %w", err)
	}
	return NewIdentity(Role(parts[0]), parts[1], epoch, generation)
}

func parseNumber(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	// The comparison refuses leading zeros and signs.
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != s {
		return 0, fmt.Errorf("%w: %.20q is not a decimal number from 1 to %d without leading zero", ErrIdentity, s, maxNumber)
	}
	return uint32(n), nil
}

// String returns the canonical form.
func (id Identity) String() string {
	return fmt.Sprintf("%s%s/%s/e%d.g%d", identityPrefix, id.Role, id.Name, id.Epoch, id.Generation)
}

// Compare orders (epoch, generation), epoch first: negative if id is earlier
// than other, 0 if equal, positive if later. Role and name do not take part.
func (id Identity) Compare(other Identity) int {
	return CompareVersion(id.Epoch, id.Generation, other.Epoch, other.Generation)
}

// CompareVersion orders two pairs (epoch, generation), epoch first.
func CompareVersion(epochA, generationA, epochB, generationB uint32) int {
	a := uint64(epochA)<<32 | uint64(generationA)
	b := uint64(epochB)<<32 | uint64(generationB)
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// MarshalText implements encoding.TextMarshaler with the canonical form.
func (id Identity) MarshalText() ([]byte, error) {
	if err := id.Validate(); err != nil {
		return nil, err
	}
	return []byte(id.String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler; it is as strict as
// ParseIdentity.
func (id *Identity) UnmarshalText(text []byte) error {
	parsed, err := ParseIdentity(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}

// PublicKey returns Q = H1(identity) in 48 bytes. Anyone can compute it.
func (id Identity) PublicKey() [PublicKeySize]byte {
	return [PublicKeySize]byte(id.point().BytesCompressed())
}

func (id Identity) point() *bls12381.G1 {
	q := new(bls12381.G1)
	q.Hash([]byte(id.String()), []byte(dstIdentity))
	return q
}
