package ibc

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cloudflare/circl/ecc/bls12381"
)

// ErrShare is wrapped when a share is not what the commitments say, or when
// shares do not fit each other.
var ErrShare = errors.New("share does not fit the commitments")

// MaxShares bounds how many shares a master secret may have.
const MaxShares = 255

// Commitments are public: what is known of the polynomial f of degree
// Threshold-1 with f(0) = s whose values at 1 to Shares are the shares of a
// master secret (P. Feldman, "A Practical Scheme for Non-interactive Verifiable
// Secret Sharing", FOCS 1987): its coefficients times the generator of G2. The
// first is Ppub. They are immutable and safe for concurrent use.
type Commitments struct {
	params *Params
	shares int
	points []*bls12381.G2 // of the constant coefficient first
}

// ParseCommitments returns the commitments of a master secret's shares, from
// one to 255 of them: points has those behind Ppub, 96 bytes each. Errors wrap
// ErrEncoding.
func ParseCommitments(params *Params, shares int, points [][]byte) (*Commitments, error) {
	if shares < 1 || shares > MaxShares || len(points) >= shares {
		return nil, fmt.Errorf("%w: %d commitments for %d shares", ErrEncoding, len(points)+1, shares)
	}
	c := &Commitments{params: params, shares: shares, points: []*bls12381.G2{params.ppub}}
	for i, b := range points {
		p, err := parseG2(b)
		if err != nil {
			return nil, fmt.Errorf("parse commitment %d: %w", i+1, err)
		}
		c.points = append(c.points, p)
	}
	return c, nil
}

// Params returns the public parameters of the shared secret.
func (c *Commitments) Params() *Params { return c.params }

// Threshold returns how many shares make the secret.
func (c *Commitments) Threshold() int { return len(c.points) }

// Shares returns how many there are.
func (c *Commitments) Shares() int { return c.shares }

// Points returns the commitments behind Ppub, 96 bytes each.
func (c *Commitments) Points() [][]byte {
	out := make([][]byte, 0, len(c.points)-1)
	for _, p := range c.points[1:] {
		out = append(out, p.BytesCompressed())
	}
	return out
}

// equal reports whether two are about the same polynomial.
func (c *Commitments) equal(other *Commitments) bool {
	return c.shares == other.shares && slices.EqualFunc(c.points, other.points, (*bls12381.G2).IsEqual)
}

// at returns f(index) times the generator of G2: the public key of a share.
func (c *Commitments) at(index int) *bls12381.G2 {
	x := scalarOf(index)
	sum := new(bls12381.G2)
	sum.SetIdentity()
	for _, p := range slices.Backward(c.points) {
		sum.ScalarMult(x, sum)
		sum.Add(sum, p)
	}
	return sum
}

// Share is one holder's part of a master secret. By itself it says nothing of
// the secret.
type Share struct {
	commitments *Commitments
	index       int
	s           *bls12381.Scalar
}

// Split shares the master secret out: any threshold of the shares have it, fewer
// have nothing. Errors wrap ErrShare if there are no such shares.
func (m *MasterSecret) Split(random io.Reader, threshold, shares int) ([]*Share, *Commitments, error) {
	if threshold < 1 || threshold > shares || shares > MaxShares {
		return nil, nil, fmt.Errorf("%w: %d of %d", ErrShare, threshold, shares)
	}
	f := []*bls12381.Scalar{m.s}
	c := &Commitments{params: m.params, shares: shares, points: []*bls12381.G2{m.params.ppub}}
	for range threshold - 1 {
		a, err := randomScalar(random)
		if err != nil {
			return nil, nil, err
		}
		p := new(bls12381.G2)
		p.ScalarMult(a, bls12381.G2Generator())
		f, c.points = append(f, a), append(c.points, p)
	}
	defer func() { destroyScalars(f[1:]) }()
	out := make([]*Share, shares)
	for i := range out {
		out[i] = &Share{commitments: c, index: i + 1, s: evaluate(f, i+1)}
	}
	return out, c, nil
}

// NewShare returns the share with a number, from 1, whose value is s (32 bytes)
// after checking it against the commitments. Errors wrap ErrEncoding or ErrShare.
func NewShare(c *Commitments, index int, s []byte) (*Share, error) {
	if index < 1 || index > c.shares {
		return nil, fmt.Errorf("%w: there is no share %d of %d", ErrShare, index, c.shares)
	}
	scalar, err := parseScalar(s)
	if err != nil {
		return nil, fmt.Errorf("parse share %d: %w", index, err)
	}
	x := &Share{commitments: c, index: index, s: scalar}
	if err := x.Verify(); err != nil {
		return nil, err
	}
	return x, nil
}

// Verify checks the share against its commitments. Errors wrap ErrShare.
func (x *Share) Verify() error {
	p := new(bls12381.G2)
	p.ScalarMult(x.s, bls12381.G2Generator())
	if !p.IsEqual(x.commitments.at(x.index)) {
		return fmt.Errorf("%w: share %d", ErrShare, x.index)
	}
	return nil
}

// Index returns the share's number, from 1.
func (x *Share) Index() int { return x.index }

// Commitments returns what is public of all the shares.
func (x *Share) Commitments() *Commitments { return x.commitments }

// Bytes returns the share's value. The caller zeroes it after use.
func (x *Share) Bytes() ([]byte, error) { return x.s.MarshalBinary() }

// Destroy overwrites the share as far as Go allows; x is unusable afterwards.
func (x *Share) Destroy() { *x.s = bls12381.Scalar{} }

// String keeps the share out of logs and of %v.
func (x *Share) String() string {
	return fmt.Sprintf("share %d of %d of the master secret of %x", x.index, x.commitments.shares, x.commitments.params.id[:8])
}

// GoString is String, for %#v.
func (x *Share) GoString() string { return x.String() }

// Recombine returns the master secret of shares that were brought together.
// Errors wrap ErrShare and name the share that does not fit.
func Recombine(shares []*Share) (*MasterSecret, error) {
	c, indices, err := fitting(shares)
	if err != nil {
		return nil, err
	}
	s := interpolate(scalars(shares), indices, 0)
	defer func() { *s = bls12381.Scalar{} }()
	b, err := s.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("encode the master secret: %w", err)
	}
	defer clear(b)
	m, err := NewMasterSecret(c.params.epoch, b)
	if err != nil {
		return nil, err
	}
	if m.params.id != c.params.id {
		m.Destroy()
		return nil, fmt.Errorf("%w: they make another secret than that of %x", ErrShare, c.params.id[:8])
	}
	return m, nil
}

// RecoverShare returns a share that was lost, from enough of the others. Whoever
// does it learns that share.
func RecoverShare(shares []*Share, index int) (*Share, error) {
	c, indices, err := fitting(shares)
	if err != nil {
		return nil, err
	}
	if index < 1 || index > c.shares {
		return nil, fmt.Errorf("%w: there is no share %d of %d", ErrShare, index, c.shares)
	}
	x := &Share{commitments: c, index: index, s: interpolate(scalars(shares), indices, index)}
	return x, x.Verify()
}

// fitting checks that shares are enough, of one polynomial, and each its own.
func fitting(shares []*Share) (*Commitments, []int, error) {
	if len(shares) == 0 {
		return nil, nil, fmt.Errorf("%w: there are none", ErrShare)
	}
	c := shares[0].commitments
	var indices []int
	for _, x := range shares {
		switch {
		case !x.commitments.equal(c):
			return nil, nil, fmt.Errorf("%w: share %d is of another secret than share %d", ErrShare, x.index, shares[0].index)
		case slices.Contains(indices, x.index):
			return nil, nil, fmt.Errorf("%w: share %d is there twice", ErrShare, x.index)
		}
		if err := x.Verify(); err != nil {
			return nil, nil, err
		}
		indices = append(indices, x.index)
	}
	if len(indices) < c.Threshold() {
		return nil, nil, fmt.Errorf("%w: %d are too few, %d are needed", ErrShare, len(indices), c.Threshold())
	}
	return c, indices, nil
}

// evaluate returns f(x) by Horner's rule.
func evaluate(f []*bls12381.Scalar, x int) *bls12381.Scalar {
	at, sum := scalarOf(x), new(bls12381.Scalar)
	for _, a := range slices.Backward(f) {
		sum.Mul(sum, at)
		sum.Add(sum, a)
	}
	return sum
}

// scalars returns the values of shares, which stay theirs.
func scalars(shares []*Share) []*bls12381.Scalar {
	out := make([]*bls12381.Scalar, len(shares))
	for i, x := range shares {
		out[i] = x.s
	}
	return out
}

// interpolate returns f(x) of the polynomial through values at indices.
func interpolate(values []*bls12381.Scalar, indices []int, x int) *bls12381.Scalar {
	sum, part := new(bls12381.Scalar), new(bls12381.Scalar)
	for i, value := range values {
		part.Mul(lagrange(indices, i, x), value)
		sum.Add(sum, part)
	}
	*part = bls12381.Scalar{}
	return sum
}

// lagrange returns the coefficient of the i-th of some points for the value at
// x: the product of (x - x_j) / (x_i - x_j) over all others.
func lagrange(indices []int, i, x int) *bls12381.Scalar {
	above, below, at := new(bls12381.Scalar), new(bls12381.Scalar), scalarOf(x)
	above.SetOne()
	below.SetOne()
	difference := new(bls12381.Scalar)
	for j, other := range indices {
		if j == i {
			continue
		}
		difference.Sub(at, scalarOf(other))
		above.Mul(above, difference)
		difference.Sub(scalarOf(indices[i]), scalarOf(other))
		below.Mul(below, difference)
	}
	below.Inv(below)
	above.Mul(above, below)
	return above
}

func scalarOf(n int) *bls12381.Scalar {
	s := new(bls12381.Scalar)
	s.SetUint64(uint64(n))
	return s
}
