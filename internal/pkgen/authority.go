package pkgen

import (
	"crypto/hkdf"
	"crypto/sha256"

	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// authority is what makes keys and statements in an epoch: the master secret,
// or those who have it in shares.
type authority interface {
	Params() *ibc.Params
	Extract(id ibc.Identity) (*ibc.PrivateKey, error)
	Sign(kind ibc.Kind, document []byte) ([]byte, error)
	// Derive returns a secret for one purpose, the same each time.
	Derive(purpose string, size int) ([]byte, error)
	// Destroy overwrites what is secret; the authority is unusable afterwards.
	Destroy()
}

// whole is the authority that has the master secret.
type whole struct{ *ibc.MasterSecret }

// Derive implements authority.
func (w whole) Derive(purpose string, size int) ([]byte, error) {
	s := w.Bytes()
	defer clear(s)
	return hkdf.Key(sha256.New, s, nil, purpose, size)
}

// gathered is the master secret of shares that were brought together.
type gathered struct {
	whole
	shares []*custody.Share
}

// Destroy implements authority.
func (g gathered) Destroy() {
	g.whole.Destroy()
	for _, x := range g.shares {
		x.Destroy()
	}
}
