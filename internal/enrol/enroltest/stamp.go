package enroltest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Signer is a device's identity key: an *ibc.PrivateKey or a Stamp.
type Signer interface {
	Identity() ibc.Identity
	Sign(random io.Reader, message []byte) ([]byte, error)
}

// Stamp stands in for an identity-based key where what it proves does not
// matter: anybody can make its signatures.
type Stamp struct {
	ID ibc.Identity
}

// Identity implements Signer.
func (s Stamp) Identity() ibc.Identity { return s.ID }

// Sign implements Signer.
func (s Stamp) Sign(_ io.Reader, message []byte) ([]byte, error) { return stamp(s.ID, message), nil }

func stamp(id ibc.Identity, message []byte) []byte {
	sum := sha256.Sum256(append([]byte(id.String()), message...))
	return sum[:]
}

// Stamps is the enrol.Verifier of stamps.
type Stamps struct{}

var _ enrol.Verifier = Stamps{}

// ID implements enrol.Verifier.
func (Stamps) ID() [ibc.ParamsIDSize]byte { return sha256.Sum256([]byte("stamps")) }

var errStamp = errors.New("not the stamp of this identity")

// Verify implements enrol.Verifier.
func (Stamps) Verify(id ibc.Identity, message, signature []byte) error {
	if !bytes.Equal(signature, stamp(id, message)) {
		return fmt.Errorf("%w: %s", errStamp, id)
	}
	return nil
}
