package ibc

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/cloudflare/circl/ecc/bls12381"
)

// coefficientSize is the length of a coefficient of the small exponents test: a
// contribution that does not hold passes once in 2^128.
const coefficientSize = 16

// maxNamed bounds how many items a PartialError names.
const maxNamed = 3

// Checked is a contribution that was found right.
type Checked struct {
	work   *Work
	index  int
	points []*bls12381.G1
}

// Index returns whose it is.
func (c *Checked) Index() int { return c.index }

// Check checks a contribution against the commitments. All of it costs two
// pairings: points P_k to hashes H_k are right if the sum of c_k*P_k is the
// share's multiple of the sum of c_k*H_k for coefficients c_k that whoever
// contributes cannot foresee (the small exponents test of M. Bellare, J. Garay
// and T. Rabin, "Fast Batch Verification for Modular Exponentiation and Digital
// Signatures", EUROCRYPT 98; every point was found to be of prime order, which
// it rests on). Only what does not hold is looked for, by halving.
//
// The error is a *PartialError if the contribution does not hold; it wraps
// ErrShare if there is no such share.
func (w *Work) Check(random io.Reader, c Contribution) (*Checked, error) {
	if c.Index < 1 || c.Index > w.commitments.shares {
		return nil, fmt.Errorf("%w: there is no share %d of %d", ErrShare, c.Index, w.commitments.shares)
	}
	points, err := w.parse(c)
	if err != nil {
		return nil, err
	}
	t := exponentsTest{
		coefficients: make([]byte, len(points)*coefficientSize),
		points:       points, hashes: w.hashed(), public: w.commitments.at(c.Index), most: maxNamed + 1,
	}
	if _, err := io.ReadFull(random, t.coefficients); err != nil {
		return nil, fmt.Errorf("read random: %w", err)
	}
	if wrong := t.wrong(0, len(points)); len(wrong) > 0 {
		return nil, w.partialError(c.Index, wrong)
	}
	return &Checked{work: w, index: c.Index, points: points}, nil
}

// parse decodes the points of a contribution.
func (w *Work) parse(c Contribution) ([]*bls12381.G1, error) {
	const size = bls12381.G1SizeCompressed
	if len(c.Points) != len(w.items)*size {
		return nil, &PartialError{Index: c.Index, What: fmt.Sprintf("it has %d bytes, %d keys and statements have %d", len(c.Points), len(w.items), len(w.items)*size)}
	}
	points, failed := make([]*bls12381.G1, len(w.items)), make([]error, len(w.items))
	inParallel(len(points), func(i int) {
		points[i], failed[i] = parseG1(c.Points[i*size : (i+1)*size])
	})
	var wrong []int
	for i, err := range failed {
		if err != nil && len(wrong) <= maxNamed {
			wrong = append(wrong, i)
		}
	}
	if len(wrong) > 0 {
		return nil, errors.Join(w.partialError(c.Index, wrong), failed[wrong[0]])
	}
	return points, nil
}

func (w *Work) partialError(index int, wrong []int) error {
	var names []string
	for i, at := range wrong {
		if i == maxNamed {
			names = append(names, "others")
			break
		}
		names = append(names, w.items[at].what)
	}
	return &PartialError{Index: index, What: strings.Join(names, ", ")}
}

// exponentsTest is the test of one contribution.
type exponentsTest struct {
	coefficients   []byte
	points, hashes []*bls12381.G1
	public         *bls12381.G2 // of the share
	most           int          // how many that do not hold are looked for
}

// wrong returns the first items from one to another (not included) that do not
// hold: about as many as are looked for.
func (t *exponentsTest) wrong(from, to int) []int {
	if from == to || pairingsEqual(t.sum(t.points, from, to), t.sum(t.hashes, from, to), t.public) {
		return nil
	}
	if to-from == 1 {
		return []int{from}
	}
	middle := (from + to) / 2
	wrong := t.wrong(from, middle)
	if len(wrong) < t.most {
		wrong = append(wrong, t.wrong(middle, to)...)
	}
	return wrong
}

// sum returns the sum of coefficient times point, by the bucket method of N.
// Pippenger (FOCS 1976) with windows of four bits.
func (t *exponentsTest) sum(points []*bls12381.G1, from, to int) *bls12381.G1 {
	var windows [2 * coefficientSize]*bls12381.G1 // the most significant first
	inParallel(len(windows), func(n int) {
		var buckets [16]bls12381.G1
		for i := range buckets {
			buckets[i].SetIdentity()
		}
		for i := from; i < to; i++ {
			digit := t.coefficients[i*coefficientSize+n/2] >> (4 - n%2*4) & 15
			buckets[digit].Add(&buckets[digit], points[i])
		}
		running, sum := new(bls12381.G1), new(bls12381.G1)
		running.SetIdentity()
		sum.SetIdentity()
		for digit := 15; digit > 0; digit-- {
			running.Add(running, &buckets[digit])
			sum.Add(sum, running)
		}
		windows[n] = sum
	})
	sum := new(bls12381.G1)
	sum.SetIdentity()
	for _, window := range windows {
		for range 4 {
			sum.Double()
		}
		sum.Add(sum, window)
	}
	return sum
}
