package agent

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// KeyStore is where the private keys of certificates live. What it wants kept
// of a key is key.pem of the pair, whose PEM label says whose it is: a device
// that is given another store keeps using the pairs that it has. One that is a
// provision.Sealer as well opens and seals what the device was provisioned with.
type KeyStore interface {
	// Name is what Status says, "file" or "tpm".
	Name() string
	// PEMType is the label (RFC 7468) of what Generate wants kept, its own.
	PEMType() string
	// Generate makes a key pair, and returns what is to be kept of it, the content
	// of a PEM block. An error that wraps fleet.ErrProfile says that the store has
	// no such keys; the CLM is told so.
	Generate(algorithm fleet.KeyAlgorithm) (key crypto.Signer, kept []byte, err error)
	// Load returns the key of what was kept, which may be cleared afterwards. The
	// key's signatures may fail.
	Load(kept []byte) (crypto.Signer, error)
}

// FileKeys keeps private keys in key.pem itself, as PKCS#8 (RFC 5958).
type FileKeys struct {
	Random io.Reader // nil: crypto/rand
}

// Name implements KeyStore.
func (FileKeys) Name() string { return "file" }

// PEMType implements KeyStore.
func (FileKeys) PEMType() string { return pemPrivateKey }

// Generate implements KeyStore.
func (f FileKeys) Generate(algorithm fleet.KeyAlgorithm) (crypto.Signer, []byte, error) {
	key, err := newKey(cmp.Or(f.Random, rand.Reader), algorithm)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode private key: %w", err)
	}
	return key, der, nil
}

// Load implements KeyStore.
func (FileKeys) Load(kept []byte) (crypto.Signer, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(kept)
	if err != nil {
		// The parser's own words may quote the key.
		return nil, errors.New("not a private key in PKCS#8")
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T", parsed)
	}
	return key, nil
}

// newKey makes a key pair.
func newKey(random io.Reader, algorithm fleet.KeyAlgorithm) (crypto.Signer, error) {
	switch algorithm {
	case fleet.ECDSAP256:
		return ecdsa.GenerateKey(elliptic.P256(), random)
	case fleet.ECDSAP384:
		return ecdsa.GenerateKey(elliptic.P384(), random)
	case fleet.RSA1024:
		return rsa.GenerateKey(random, 1024) //nolint:gosec // behind a lab flag, for the paper's comparison
	case fleet.RSA2048:
		return rsa.GenerateKey(random, 2048)
	case fleet.RSA3072:
		return rsa.GenerateKey(random, 3072)
	case fleet.RSA4096:
		return rsa.GenerateKey(random, 4096)
	}
	return nil, fmt.Errorf("%w: key algorithm %.30q", fleet.ErrProfile, algorithm)
}

// keptKey is a private key and what its store wants kept of it.
type keptKey struct {
	crypto.Signer
	store KeyStore
	kept  []byte // a secret, if the store is one of files
}

// generate makes a key pair in the first of the stores.
func (s store) generate(algorithm fleet.KeyAlgorithm) (keptKey, error) {
	key, kept, err := s.keys[0].Generate(algorithm)
	if errors.Is(err, fleet.ErrProfile) {
		return keptKey{}, refuse(enrol.ProblemForbidden, "%v", err)
	}
	if err != nil {
		return keptKey{}, fmt.Errorf("make key pair: %w", err)
	}
	return keptKey{Signer: key, store: s.keys[0], kept: kept}, nil
}

func (k keptKey) encode() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: k.store.PEMType(), Bytes: k.kept})
}

// readKey reads the private key of a pair. The caller clears what is kept of it.
func (s store) readKey(id enrol.ID) (keptKey, error) {
	data, err := keyfile.ReadSecret(s.pair(id, keyName), maxPairFile)
	if err != nil {
		return keptKey{}, fmt.Errorf("read private key: %w", err)
	}
	defer clear(data)
	block, _ := pem.Decode(data)
	if block == nil {
		return keptKey{}, fmt.Errorf("%s: %w", keyName, ErrState)
	}
	for _, store := range s.keys {
		if store.PEMType() != block.Type {
			continue
		}
		key, err := store.Load(block.Bytes)
		if err != nil {
			clear(block.Bytes)
			return keptKey{}, fmt.Errorf("%s: %w: %w", keyName, ErrState, err)
		}
		return keptKey{Signer: key, store: store, kept: block.Bytes}, nil
	}
	clear(block.Bytes)
	return keptKey{}, fmt.Errorf("%s: %w: no store for a key of type %.40q", keyName, ErrState, block.Type)
}

// tryKey reports why the private key of a complete pair does not sign, nil if
// it does. A key in a TPM may be there in name only.
func (s store) tryKey(p *pair) error {
	if p == nil || p.leaf == nil {
		return nil
	}
	key, err := s.readKey(p.id())
	if err != nil {
		return err
	}
	clear(key.kept)
	digest, hash := enrol.PossessionDigest(key.Public(), []byte("edgeclm/v1/self-test"))
	if _, err := key.Sign(rand.Reader, digest, hash); err != nil {
		return fmt.Errorf("the private key of enrolment %s, in store %s: %w", p.id(), key.store.Name(), err)
	}
	return nil
}
