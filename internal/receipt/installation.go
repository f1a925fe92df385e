package receipt

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Installation is a random number that an endpoint draws when it is provisioned
// for the first time, and keeps: two of them for one identity say that its
// bundle was taken twice. It is no secret.
type Installation [16]byte

// NewInstallation draws one.
func NewInstallation(random io.Reader) (Installation, error) {
	var id Installation
	if _, err := io.ReadFull(random, id[:]); err != nil {
		return id, fmt.Errorf("draw an installation: %w", err)
	}
	return id, nil
}

// String returns 32 hex digits.
func (i Installation) String() string { return hex.EncodeToString(i[:]) }

// MarshalText implements encoding.TextMarshaler.
func (i Installation) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; errors wrap ErrFormat.
func (i *Installation) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(i) || hex.EncodeToString(b) != string(text) {
		return fmt.Errorf("%w: %.40q is not an installation in lower-case hex", ErrFormat, text)
	}
	*i = Installation(b)
	return nil
}

// Board returns what a receipt says about the machine's serial number: a hash
// that differs where an installation was copied to another board, and that
// says the serial number to nobody who cannot guess it. Without one it is zero.
func (i Installation) Board(serial string) (bundle.Hash, error) {
	if serial == "" {
		return bundle.Hash{}, nil
	}
	m, err := ibc.LP([]byte(label+"-board"), i[:], []byte(serial))
	return sha256.Sum256(m), err
}
