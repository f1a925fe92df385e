package ibc

import (
	"crypto/sha256"
	"fmt"
	"io"

	"github.com/cloudflare/circl/ecc/bls12381"
)

// MasterSecret is the secret s of one epoch of a PKG. Whoever holds it can
// extract the key of every identity of that epoch.
type MasterSecret struct {
	params *Params
	s      *bls12381.Scalar
	bytes  []byte
}

// Setup draws a master secret for an epoch.
func Setup(random io.Reader, epoch uint32) (*MasterSecret, error) {
	s, err := randomScalar(random)
	if err != nil {
		return nil, err
	}
	defer func() { *s = bls12381.Scalar{} }()
	b, err := s.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("encode the master secret: %w", err)
	}
	defer clear(b)
	return NewMasterSecret(epoch, b)
}

// randomScalar draws from [1, r-1], each as likely.
func randomScalar(random io.Reader) (*bls12381.Scalar, error) {
	var b [ScalarSize]byte
	defer clear(b[:])
	for {
		if _, err := io.ReadFull(random, b[:]); err != nil {
			return nil, fmt.Errorf("read random: %w", err)
		}
		b[0] &= 0x7f // r has 255 bits: nine candidates in ten are accepted
		if s, err := parseScalar(b[:]); err == nil {
			return s, nil
		}
	}
}

// NewMasterSecret returns the master secret s (32 bytes, big-endian, in
// [1, r-1]) of an epoch. Errors wrap ErrEncoding.
func NewMasterSecret(epoch uint32, s []byte) (*MasterSecret, error) {
	scalar, err := parseScalar(s)
	if err != nil {
		return nil, fmt.Errorf("parse master secret: %w", err)
	}
	ppub := new(bls12381.G2)
	ppub.ScalarMult(scalar, bls12381.G2Generator())
	params, err := NewParams(epoch, ppub.BytesCompressed())
	if err != nil {
		return nil, err
	}
	return &MasterSecret{params: params, s: scalar, bytes: append([]byte(nil), s...)}, nil
}

// Params returns the public parameters.
func (m *MasterSecret) Params() *Params { return m.params }

// Bytes returns s. The caller zeroes it after use.
func (m *MasterSecret) Bytes() []byte { return append([]byte(nil), m.bytes...) }

// Destroy overwrites the secret as far as Go allows; m is unusable afterwards.
func (m *MasterSecret) Destroy() {
	clear(m.bytes)
	*m.s = bls12381.Scalar{}
}

// String keeps the secret out of logs and of %v.
func (m *MasterSecret) String() string {
	return "master secret of " + fmt.Sprintf("%x", m.params.id[:8])
}

// GoString is String, for %#v.
func (m *MasterSecret) GoString() string { return m.String() }

// Extract returns d = s*Q, the private key of id. The key is right by
// construction; whoever receives it checks it with NewPrivateKey.
func (m *MasterSecret) Extract(id Identity) (*PrivateKey, error) {
	if err := id.Validate(); err != nil {
		return nil, err
	}
	if id.Epoch != m.params.epoch {
		return nil, fmt.Errorf("%w: identity %s, master secret of epoch %d", ErrEpoch, id, m.params.epoch)
	}
	q := id.point()
	d := new(bls12381.G1)
	d.ScalarMult(m.s, q)
	return &PrivateKey{params: m.params, id: id, q: q, d: d}, nil
}

// Kind labels what a PKG statement is about, so that a statement about one
// kind of document is none about another.
type Kind string

// The kinds of PKG statements.
const (
	KindManifest   Kind = "manifest"
	KindLedger     Kind = "ledger"
	KindBundle     Kind = "bundle"
	KindAnchor     Kind = "anchor"
	KindEpoch      Kind = "epoch"
	KindTranscript Kind = "transcript"
)

// Sign states the document under kind: S = s*H(LP(...)), 48 bytes. It hashes
// the document itself, never a digest that it was handed.
func (m *MasterSecret) Sign(kind Kind, document []byte) ([]byte, error) {
	message, err := m.params.statementMessage(kind, document)
	if err != nil {
		return nil, err
	}
	return m.signMessage(message), nil
}

// SignStream is Sign of a document that is written rather than held: it hashes
// what document writes.
func (m *MasterSecret) SignStream(kind Kind, document io.WriterTo) ([]byte, error) {
	digest := sha256.New()
	if _, err := document.WriteTo(digest); err != nil {
		return nil, err
	}
	message, err := m.params.digestMessage(kind, [sha256.Size]byte(digest.Sum(nil)))
	if err != nil {
		return nil, err
	}
	return m.signMessage(message), nil
}

// signMessage returns s*H(message).
func (m *MasterSecret) signMessage(message []byte) []byte {
	out := new(bls12381.G1)
	out.ScalarMult(m.s, statementHash(message))
	return out.BytesCompressed()
}

// VerifyStatement checks a PKG statement: e(S, g2) = e(H(...), Ppub). Errors
// wrap ErrEncoding or ErrSignature.
func (p *Params) VerifyStatement(kind Kind, document, statement []byte) error {
	s, err := parseG1(statement)
	if err != nil {
		return fmt.Errorf("parse statement: %w", err)
	}
	point, err := p.statementPoint(kind, document)
	if err != nil {
		return err
	}
	if !pairingsEqual(s, point, p.ppub) {
		return fmt.Errorf("%w: not a %s statement of the PKG with parameters %x", ErrSignature, kind, p.id[:8])
	}
	return nil
}

// statementPoint is H(LP("edgeclm/v1/pkg", kind, params_id, SHA-256(document))).
func (p *Params) statementPoint(kind Kind, document []byte) (*bls12381.G1, error) {
	message, err := p.statementMessage(kind, document)
	if err != nil {
		return nil, err
	}
	return statementHash(message), nil
}

func statementHash(message []byte) *bls12381.G1 {
	point := new(bls12381.G1)
	point.Hash(message, []byte(dstStatement))
	return point
}

func (p *Params) statementMessage(kind Kind, document []byte) ([]byte, error) {
	return p.digestMessage(kind, sha256.Sum256(document))
}

// digestMessage is for those who have hashed the document themselves.
func (p *Params) digestMessage(kind Kind, digest [sha256.Size]byte) ([]byte, error) {
	return LP([]byte("edgeclm/v1/pkg"), []byte(kind), p.id[:], digest[:])
}
