package ibc

import (
	"crypto"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/cloudflare/circl/ecc/bls12381"
	"github.com/cloudflare/circl/expander"
)

// ErrEncoding is wrapped by every refusal of an encoded point or scalar.
var ErrEncoding = errors.New("invalid encoding")

// LP joins its arguments, each behind its length as a big-endian uint16. An
// argument of more than 65,535 bytes is an error. Every signed message of the
// product is an LP whose first argument is a label of its own.
func LP(parts ...[]byte) ([]byte, error) {
	n := 0
	for _, p := range parts {
		if len(p) > math.MaxUint16 {
			return nil, fmt.Errorf("%w: a part of %d bytes does not fit a 16-bit length", ErrEncoding, len(p))
		}
		n += 2 + len(p)
	}
	out := make([]byte, 0, n)
	for _, p := range parts {
		out = binary.BigEndian.AppendUint16(out, uint16(len(p)))
		out = append(out, p...)
	}
	return out, nil
}

// SplitLP takes the first n parts off data that LP made, and returns them and
// what follows. The parts are of data's memory. Errors wrap ErrEncoding.
func SplitLP(data []byte, n int) (parts [][]byte, rest []byte, err error) {
	for range n {
		if len(data) < 2 {
			return nil, nil, fmt.Errorf("%w: %d parts instead of %d", ErrEncoding, len(parts), n)
		}
		size := int(binary.BigEndian.Uint16(data))
		if data = data[2:]; len(data) < size {
			return nil, nil, fmt.Errorf("%w: a part of %d bytes, of which there are %d", ErrEncoding, size, len(data))
		}
		parts, data = append(parts, data[:size:size]), data[size:]
	}
	return parts, data, nil
}

// parseG1 decodes a compressed point of the prime-order subgroup other than
// the identity. circl's SetBytes checks the subgroup but accepts the identity
// and trailing bytes.
func parseG1(b []byte) (*bls12381.G1, error) {
	if len(b) != bls12381.G1SizeCompressed || b[0]&0x80 == 0 {
		return nil, fmt.Errorf("%w: not a compressed G1 point of %d bytes", ErrEncoding, bls12381.G1SizeCompressed)
	}
	p := new(bls12381.G1)
	if err := p.SetBytes(b); err != nil {
		return nil, fmt.Errorf("%w: not a point of prime order in G1", ErrEncoding)
	}
	if p.IsIdentity() {
		return nil, fmt.Errorf("%w: the identity of G1", ErrEncoding)
	}
	return p, nil
}

// parseG2 is parseG1 for G2.
func parseG2(b []byte) (*bls12381.G2, error) {
	if len(b) != bls12381.G2SizeCompressed || b[0]&0x80 == 0 {
		return nil, fmt.Errorf("%w: not a compressed G2 point of %d bytes", ErrEncoding, bls12381.G2SizeCompressed)
	}
	p := new(bls12381.G2)
	if err := p.SetBytes(b); err != nil {
		return nil, fmt.Errorf("%w: not a point of prime order in G2", ErrEncoding)
	}
	if p.IsIdentity() {
		return nil, fmt.Errorf("%w: the identity of G2", ErrEncoding)
	}
	return p, nil
}

// parseScalar decodes a scalar in [1, r-1] from exactly 32 bytes. circl's own
// decoders reduce modulo r, accept 0 and ignore trailing bytes.
func parseScalar(b []byte) (*bls12381.Scalar, error) {
	if len(b) != ScalarSize {
		return nil, fmt.Errorf("%w: a scalar has %d bytes, not %d", ErrEncoding, ScalarSize, len(b))
	}
	// The borrow of b - r, computed without branching on secret bytes.
	order := bls12381.Order()
	borrow := 0
	for i := ScalarSize - 1; i >= 0; i-- {
		borrow = (int(b[i]) - int(order[i]) - borrow) >> 8 & 1
	}
	s := new(bls12381.Scalar)
	s.SetBytes(b)
	if borrow == 0 || s.IsZero() == 1 {
		return nil, fmt.Errorf("%w: the scalar is not in [1, r-1]", ErrEncoding)
	}
	return s, nil
}

// challenge is hash_to_field (RFC 9380 section 5.2) onto the scalar field with
// L = 48, count = 1.
func challenge(msg []byte) *bls12381.Scalar {
	const l = 48
	uniform := expander.NewExpanderMD(crypto.SHA256, []byte(dstChallenge)).Expand(msg, l)
	h := new(bls12381.Scalar)
	h.SetBytes(uniform)
	return h
}

// pairingsEqual reports e(a, g2) = e(b, p).
func pairingsEqual(a, b *bls12381.G1, p *bls12381.G2) bool {
	product := bls12381.ProdPairFrac(
		[]*bls12381.G1{a, b},
		[]*bls12381.G2{bls12381.G2Generator(), p},
		[]int{1, -1},
	)
	return product.IsIdentity()
}
