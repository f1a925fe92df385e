package ibc

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cloudflare/circl/ecc/bls12381"
)

// PartialError names the share whose contribution does not hold: its holder
// made a mistake, or means ill. It wraps ErrShare.
type PartialError struct {
	Index int
	What  string // that does not hold; "": all of it
}

// Error implements error.
func (e *PartialError) Error() string {
	text := fmt.Sprintf("the contribution of share %d does not hold", e.Index)
	if e.What != "" {
		text += ": " + e.What
	}
	return text
}

// Is makes errors.Is find ErrShare.
func (e *PartialError) Is(target error) bool { return target == ErrShare }

// Partial is a holder's contribution to a private key or a statement: s_i times
// the point that it is about. Enough of them make it, and the master secret is
// nowhere.
type Partial struct {
	Index int
	Point []byte // compressed G1, 48 bytes
}

// Extract returns the share's contribution to the key of id. Errors are those
// of MasterSecret.Extract.
func (x *Share) Extract(id Identity) (Partial, error) {
	if err := x.commitments.accepts(id); err != nil {
		return Partial{}, err
	}
	return x.contribute(id.point()), nil
}

// Sign returns the share's contribution to a statement. It hashes the document
// itself, never a digest or a point that it was handed.
func (x *Share) Sign(kind Kind, document []byte) (Partial, error) {
	point, err := x.commitments.params.statementPoint(kind, document)
	if err != nil {
		return Partial{}, err
	}
	return x.contribute(point), nil
}

func (x *Share) contribute(to *bls12381.G1) Partial {
	p := new(bls12381.G1)
	p.ScalarMult(x.s, to)
	return Partial{Index: x.index, Point: p.BytesCompressed()}
}

func (c *Commitments) accepts(id Identity) error {
	if err := id.Validate(); err != nil {
		return err
	}
	if id.Epoch != c.params.epoch {
		return fmt.Errorf("%w: identity %s, shares of epoch %d", ErrEpoch, id, c.params.epoch)
	}
	return nil
}

// CombineKey makes the private key of id of enough contributions. Each is
// checked, by two pairings: the error is a *PartialError for each that does not
// hold, joined, or wraps ErrShare if they are too few or one is there twice.
func (c *Commitments) CombineKey(id Identity, partials []Partial) (*PrivateKey, error) {
	if err := c.accepts(id); err != nil {
		return nil, err
	}
	d, err := c.combine(id.point(), partials)
	if err != nil {
		return nil, fmt.Errorf("combine the key of %s: %w", id, err)
	}
	defer clear(d)
	return NewPrivateKey(c.params, id, d)
}

// CombineStatement makes a PKG statement of enough contributions. Errors are
// those of CombineKey.
func (c *Commitments) CombineStatement(kind Kind, document []byte, partials []Partial) ([]byte, error) {
	point, err := c.params.statementPoint(kind, document)
	if err != nil {
		return nil, err
	}
	statement, err := c.combine(point, partials)
	if err != nil {
		return nil, fmt.Errorf("combine a %s statement: %w", kind, err)
	}
	return statement, c.params.VerifyStatement(kind, document, statement)
}

// combine returns f(0) times a point.
func (c *Commitments) combine(to *bls12381.G1, partials []Partial) ([]byte, error) {
	var (
		indices []int
		points  []*bls12381.G1
		failed  error
	)
	for _, p := range partials {
		point, err := parseG1(p.Point)
		switch {
		case slices.Contains(indices, p.Index):
			return nil, fmt.Errorf("%w: the contribution of share %d is there twice", ErrShare, p.Index)
		case p.Index < 1 || p.Index > c.shares:
			return nil, fmt.Errorf("%w: there is no share %d of %d", ErrShare, p.Index, c.shares)
		case err != nil || !pairingsEqual(point, to, c.at(p.Index)):
			failed = errors.Join(failed, &PartialError{Index: p.Index})
			continue
		}
		indices, points = append(indices, p.Index), append(points, point)
	}
	if failed != nil {
		return nil, failed
	}
	if len(indices) < c.Threshold() {
		return nil, fmt.Errorf("%w: %d contributions are too few, %d are needed", ErrShare, len(indices), c.Threshold())
	}
	sum, part := new(bls12381.G1), new(bls12381.G1)
	sum.SetIdentity()
	for i, point := range points {
		part.ScalarMult(lagrange(indices, i, 0), point)
		sum.Add(sum, part)
	}
	return sum.BytesCompressed(), nil
}
