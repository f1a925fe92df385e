package ibc

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/cloudflare/circl/ecc/bls12381"
)

// ErrSignature is wrapped when a signature or statement does not verify.
var ErrSignature = errors.New("signature does not verify")

// ErrEpoch is wrapped when an identity of one epoch meets the parameters of
// another: it never verifies under them, whatever the algebra says.
var ErrEpoch = errors.New("identity and parameters are of different epochs")

// Params are the public parameters of one epoch of a PKG. They are immutable
// and safe for concurrent use.
type Params struct {
	epoch uint32
	ppub  *bls12381.G2
	raw   [PpubSize]byte
	id    [ParamsIDSize]byte
}

// NewParams returns the parameters of an epoch (1 to 2^31-1) whose public
// point is ppub (96 bytes, compressed G2). Errors wrap ErrEncoding.
func NewParams(epoch uint32, ppub []byte) (*Params, error) {
	if epoch < 1 || epoch > maxNumber {
		return nil, fmt.Errorf("%w: epoch %d", ErrEncoding, epoch)
	}
	point, err := parseG2(ppub)
	if err != nil {
		return nil, fmt.Errorf("parse Ppub: %w", err)
	}
	msg, err := LP([]byte(Suite), ppub)
	if err != nil {
		return nil, err
	}
	return &Params{epoch: epoch, ppub: point, raw: [PpubSize]byte(ppub), id: sha256.Sum256(msg)}, nil
}

// ID returns params_id = SHA-256(LP(suite, Ppub)), the root of trust.
func (p *Params) ID() [ParamsIDSize]byte { return p.id }

// Epoch returns the epoch whose identities these parameters verify.
func (p *Params) Epoch() uint32 { return p.epoch }

// Ppub returns the public point, 96 bytes compressed.
func (p *Params) Ppub() [PpubSize]byte { return p.raw }

// Verify checks the signature of message m by id: e(V, g2) = e(U + h*Q, Ppub).
// It wraps ErrEpoch, ErrEncoding or ErrSignature. The cost is one hash to G1,
// one G1 multiplication and a product of two pairings.
func (p *Params) Verify(id Identity, m, signature []byte) error {
	v, right, err := p.sides(id, m, signature)
	if err == nil && !pairingsEqual(v, right, p.ppub) {
		err = p.notSigned(id)
	}
	return err
}

func (p *Params) notSigned(id Identity) error {
	return fmt.Errorf("%w: not signed by %s under parameters %x", ErrSignature, id, p.id[:8])
}

// sides returns V and U + h*Q, which a signature is verified by.
func (p *Params) sides(id Identity, m, signature []byte) (v, right *bls12381.G1, err error) {
	if err := id.Validate(); err != nil {
		return nil, nil, err
	}
	if id.Epoch != p.epoch {
		return nil, nil, fmt.Errorf("%w: identity %s, parameters of epoch %d", ErrEpoch, id, p.epoch)
	}
	if len(signature) != SignatureSize {
		return nil, nil, fmt.Errorf("%w: a signature has %d bytes, not %d", ErrEncoding, SignatureSize, len(signature))
	}
	u, err := parseG1(signature[:48])
	if err != nil {
		return nil, nil, fmt.Errorf("parse U: %w", err)
	}
	if v, err = parseG1(signature[48:]); err != nil {
		return nil, nil, fmt.Errorf("parse V: %w", err)
	}
	h, err := p.challenge(id, signature[:48], m)
	if err != nil {
		return nil, nil, err
	}
	right = new(bls12381.G1)
	right.ScalarMult(h, id.point())
	right.Add(right, u)
	return v, right, nil
}

// challenge returns h = hash_to_field(LP(params_id, identity, U, m)).
func (p *Params) challenge(id Identity, u, m []byte) (*bls12381.Scalar, error) {
	msg, err := LP(p.id[:], []byte(id.String()), u, m)
	if err != nil {
		return nil, fmt.Errorf("message to sign: %w", err)
	}
	return challenge(msg), nil
}

// paramsJSON is the form of params.json.
type paramsJSON struct {
	Suite    string `json:"suite"`
	Epoch    uint32 `json:"epoch"`
	Ppub     string `json:"ppub"`
	ParamsID string `json:"params_id"`
}

// MarshalJSON writes {suite, epoch, ppub, params_id}, the points in hex.
func (p *Params) MarshalJSON() ([]byte, error) {
	return json.Marshal(paramsJSON{Suite, p.epoch, hex.EncodeToString(p.raw[:]), hex.EncodeToString(p.id[:])})
}

// UnmarshalJSON reads what MarshalJSON writes; another suite, or a params_id
// that is not that of ppub, is an error that wraps ErrEncoding.
func (p *Params) UnmarshalJSON(data []byte) error {
	var j paramsJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return fmt.Errorf("%w: %w", ErrEncoding, err)
	}
	if j.Suite != Suite {
		return fmt.Errorf("%w: suite %.40q, want %q", ErrEncoding, j.Suite, Suite)
	}
	ppub, err := hex.DecodeString(j.Ppub)
	if err != nil {
		return fmt.Errorf("%w: ppub: %w", ErrEncoding, err)
	}
	parsed, err := NewParams(j.Epoch, ppub)
	if err != nil {
		return err
	}
	if hex.EncodeToString(parsed.id[:]) != j.ParamsID {
		return fmt.Errorf("%w: params_id is not the hash of ppub", ErrEncoding)
	}
	*p = *parsed
	return nil
}
