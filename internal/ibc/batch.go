package ibc

import (
	"fmt"
	"io"

	"github.com/cloudflare/circl/ecc/bls12381"
)

// Claim is a signature of a message that somebody is said to have made.
type Claim struct {
	Identity  Identity
	Message   []byte
	Signature []byte
}

// VerifyAll is Verify of many claims. What holds costs two pairings together,
// and else one hash to G1 and one multiplication each, on all processors; what
// does not is found by halving (see Work.Check, for the test and its odds). It
// returns an error for each claim, nil for those that hold. The error beside
// them is that of random.
func (p *Params) VerifyAll(random io.Reader, claims []Claim) ([]error, error) {
	failed := make([]error, len(claims))
	left, right := make([]*bls12381.G1, len(claims)), make([]*bls12381.G1, len(claims))
	inParallel(len(claims), func(i int) {
		left[i], right[i], failed[i] = p.sides(claims[i].Identity, claims[i].Message, claims[i].Signature)
	})
	var t exponentsTest
	var of []int // of each item of the test, the claim
	for i, err := range failed {
		if err == nil {
			t.points, t.hashes, of = append(t.points, left[i]), append(t.hashes, right[i]), append(of, i)
		}
	}
	t.public, t.most, t.coefficients = p.ppub, len(of), make([]byte, len(of)*coefficientSize)
	if _, err := io.ReadFull(random, t.coefficients); err != nil {
		return nil, fmt.Errorf("read random: %w", err)
	}
	for _, i := range t.wrong(0, len(of)) {
		failed[of[i]] = p.notSigned(claims[of[i]].Identity)
	}
	return failed, nil
}
