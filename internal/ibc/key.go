package ibc

import (
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"github.com/cloudflare/circl/ecc/bls12381"
)

// ErrKey is wrapped when a private key is not that of its identity.
var ErrKey = errors.New("private key does not belong to the identity")

// PrivateKey is the key of one identity under the parameters of its epoch. It
// is safe for concurrent use.
type PrivateKey struct {
	params *Params
	id     Identity
	q, d   *bls12381.G1
}

// NewPrivateKey returns the key d (48 bytes) of id after checking
// e(d, g2) = e(Q, Ppub). Errors wrap ErrIdentity, ErrEpoch, ErrEncoding or ErrKey.
func NewPrivateKey(params *Params, id Identity, d []byte) (*PrivateKey, error) {
	if err := id.Validate(); err != nil {
		return nil, err
	}
	if id.Epoch != params.epoch {
		return nil, fmt.Errorf("%w: identity %s, parameters of epoch %d", ErrEpoch, id, params.epoch)
	}
	point, err := parseG1(d)
	if err != nil {
		return nil, fmt.Errorf("parse private key: %w", err)
	}
	q := id.point()
	if !pairingsEqual(point, q, params.ppub) {
		return nil, fmt.Errorf("%w: %s under parameters %x", ErrKey, id, params.id[:8])
	}
	return &PrivateKey{params: params, id: id, q: q, d: point}, nil
}

// Identity returns whose key this is.
func (k *PrivateKey) Identity() Identity { return k.id }

// Params returns the parameters that verify the key's signatures.
func (k *PrivateKey) Params() *Params { return k.params }

// Bytes returns d, 48 bytes. The caller zeroes it after use.
func (k *PrivateKey) Bytes() []byte { return k.d.BytesCompressed() }

// Destroy overwrites the key as far as Go allows; k is unusable afterwards.
func (k *PrivateKey) Destroy() { *k.d = bls12381.G1{} }

// String keeps the key out of logs and of %v.
func (k *PrivateKey) String() string { return "private key of " + k.id.String() }

// GoString is String, for %#v.
func (k *PrivateKey) GoString() string { return k.String() }

// Sign signs m, which begins with a label of its own (see LP) and has at most
// 65,535 bytes. The nonce is derived from the key, 32 bytes of random, the
// identity and m, so that neither a poor random source nor a repeated state
// reuses it for another message: a reused nonce reveals the key.
func (k *PrivateKey) Sign(random io.Reader, m []byte) ([]byte, error) {
	var seed [32]byte
	defer clear(seed[:])
	if _, err := io.ReadFull(random, seed[:]); err != nil {
		return nil, fmt.Errorf("read random: %w", err)
	}
	r, err := k.nonce(seed[:], m)
	if err != nil {
		return nil, err
	}
	return k.signWithNonce(r, m)
}

// nonce derives r in [1, r-1] with HKDF-SHA-256 (RFC 5869) and rejection
// sampling, so that it is uniform.
func (k *PrivateKey) nonce(seed, m []byte) (*bls12381.Scalar, error) {
	d := k.d.BytesCompressed()
	defer clear(d)
	prk, err := hkdf.Extract(sha256.New, d, seed)
	if err != nil {
		return nil, fmt.Errorf("derive nonce: %w", err)
	}
	defer clear(prk)
	msgHash := sha256.Sum256(m)
	for i := range 255 {
		info, err := LP([]byte("edgeclm/v1/ibs-nonce"), []byte(k.id.String()), msgHash[:], []byte{byte(i)})
		if err != nil {
			return nil, err
		}
		candidate, err := hkdf.Expand(sha256.New, prk, string(info), ScalarSize)
		if err != nil {
			return nil, fmt.Errorf("derive nonce: %w", err)
		}
		candidate[0] &= 0x7f // r has 255 bits: nine candidates in ten are accepted
		s, err := parseScalar(candidate)
		clear(candidate)
		if err == nil {
			return s, nil
		}
	}
	return nil, errors.New("derive nonce: no candidate in range")
}

// signWithNonce returns U||V with U = r*Q and V = (r+h)*d.
func (k *PrivateKey) signWithNonce(r *bls12381.Scalar, m []byte) ([]byte, error) {
	u := new(bls12381.G1)
	u.ScalarMult(r, k.q)
	signature := make([]byte, 0, SignatureSize)
	signature = append(signature, u.BytesCompressed()...)
	h, err := k.params.challenge(k.id, signature, m)
	if err != nil {
		return nil, err
	}
	h.Add(h, r)
	v := new(bls12381.G1)
	v.ScalarMult(h, k.d)
	return append(signature, v.BytesCompressed()...), nil
}
