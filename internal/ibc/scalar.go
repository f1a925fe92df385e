package ibc

import (
	"fmt"
	"io"
	"slices"

	"github.com/cloudflare/circl/ecc/bls12381"
)

// ShareScalar draws a scalar, of 255 bits, and shares it out (Shamir): any
// threshold of the values make it, fewer say nothing of it. values[i] is that of
// share i+1, 32 bytes; the caller zeroes all of it after use. There are no
// commitments: they would give the scalar to whoever takes discrete logarithms
// one day. Errors wrap ErrShare if there are no such shares.
func ShareScalar(random io.Reader, threshold, shares int) (secret []byte, values [][]byte, err error) {
	if threshold < 1 || threshold > shares || shares > MaxShares {
		return nil, nil, fmt.Errorf("%w: %d of %d", ErrShare, threshold, shares)
	}
	var f []*bls12381.Scalar
	defer func() { destroyScalars(f) }()
	for range threshold {
		a, err := randomScalar(random)
		if err != nil {
			return nil, nil, err
		}
		f = append(f, a)
	}
	values = make([][]byte, shares)
	for i := range values {
		at := evaluate(f, i+1)
		values[i], err = at.MarshalBinary()
		*at = bls12381.Scalar{}
		if err != nil {
			return nil, nil, fmt.Errorf("encode share %d: %w", i+1, err)
		}
	}
	secret, err = f[0].MarshalBinary()
	return secret, values, err
}

// JoinScalar returns the scalar of shares with these numbers, from 1, and values.
// That they are enough and the right ones the caller has checked. Errors wrap
// ErrShare or ErrEncoding.
func JoinScalar(indices []int, values [][]byte) ([]byte, error) {
	if len(indices) != len(values) || len(indices) == 0 {
		return nil, fmt.Errorf("%w: %d numbers for %d shares", ErrShare, len(indices), len(values))
	}
	points := make([]*bls12381.Scalar, 0, len(values))
	defer func() { destroyScalars(points) }()
	for i, v := range values {
		if indices[i] < 1 || indices[i] > MaxShares || slices.Contains(indices[:i], indices[i]) {
			return nil, fmt.Errorf("%w: share %d is there twice, or there is none", ErrShare, indices[i])
		}
		s, err := parseScalar(v)
		if err != nil {
			return nil, fmt.Errorf("parse share %d: %w", indices[i], err)
		}
		points = append(points, s)
	}
	s := interpolate(points, indices, 0)
	defer func() { *s = bls12381.Scalar{} }()
	return s.MarshalBinary()
}

func destroyScalars(scalars []*bls12381.Scalar) {
	for _, s := range scalars {
		*s = bls12381.Scalar{}
	}
}
