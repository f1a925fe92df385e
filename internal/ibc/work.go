package ibc

import (
	"crypto/sha256"
	"fmt"
	"runtime"
	"slices"
	"sync"

	"github.com/cloudflare/circl/ecc/bls12381"
)

// Work is a list of private keys and statements that holders of shares make
// together, each with one contribution to all of it. It is built from identities
// and documents, never from points or digests: whoever contributes to it has
// hashed what he read. It is not safe for concurrent use.
type Work struct {
	commitments *Commitments
	items       []workItem
	points      []*bls12381.G1 // of the first items; hashed when they are needed
}

// workItem is what one point is hashed from.
type workItem struct {
	what    string // for errors
	message []byte
	dst     string
}

// NewWork returns an empty list for the shares of some commitments.
func NewWork(c *Commitments) *Work { return &Work{commitments: c} }

// Key adds the private key of an identity. Errors are those of Share.Extract.
func (w *Work) Key(id Identity) error {
	if err := w.commitments.accepts(id); err != nil {
		return err
	}
	w.items = append(w.items, workItem{"the key of " + id.String(), []byte(id.String()), dstIdentity})
	return nil
}

// Statement adds the statement of a document.
func (w *Work) Statement(kind Kind, document []byte) error {
	message, err := w.commitments.params.statementMessage(kind, document)
	if err != nil {
		return err
	}
	w.items = append(w.items, workItem{"a statement of kind " + string(kind), message, dstStatement})
	return nil
}

// Len returns how many keys and statements there are.
func (w *Work) Len() int { return len(w.items) }

// hashed returns the point of each item. A hash to the curve is the dearest step
// of a contribution beside the multiplication.
func (w *Work) hashed() []*bls12381.G1 {
	done := len(w.points)
	w.points = append(w.points, make([]*bls12381.G1, len(w.items)-done)...)
	inParallel(len(w.items)-done, func(i int) {
		x, p := w.items[done+i], new(bls12381.G1)
		p.Hash(x.message, []byte(x.dst))
		w.points[done+i] = p
	})
	return w.points
}

// Contribution is what the holder of one share gives to a Work.
type Contribution struct {
	Index  int    // of the share
	Points []byte // compressed G1, 48 bytes for each item, in their order
}

// Contribute returns the share's contribution to all of a Work. Errors wrap
// ErrShare if the Work is for other shares.
func (x *Share) Contribute(w *Work) (Contribution, error) {
	if !x.commitments.equal(w.commitments) {
		return Contribution{}, fmt.Errorf("%w: share %d is of another secret than what it should contribute to", ErrShare, x.index)
	}
	points := w.hashed()
	out := make([]byte, len(points)*bls12381.G1SizeCompressed)
	inParallel(len(points), func(i int) {
		p := x.contribute(points[i])
		copy(out[i*bls12381.G1SizeCompressed:], p.Point)
		clear(p.Point)
	})
	return Contribution{Index: x.index, Points: out}, nil
}

// Made are the keys and statements of a Work.
type Made struct {
	params *Params
	made   map[madeKey]*bls12381.G1
}

// madeKey is what a point was hashed from.
type madeKey struct {
	dst     string
	message [sha256.Size]byte
}

func (x workItem) key() madeKey { return madeKey{x.dst, sha256.Sum256(x.message)} }

// Combine makes the keys and statements of a Work of enough contributions that
// were checked; the first of them are used. What was checked needs no pairing
// again. Errors wrap ErrShare if they are too few or one is there twice.
func (w *Work) Combine(contributions []*Checked) (*Made, error) {
	var indices []int
	for _, c := range contributions {
		if c.work != w || len(c.points) != len(w.items) {
			return nil, fmt.Errorf("%w: the contribution of share %d was checked for something else", ErrShare, c.index)
		}
		if slices.Contains(indices, c.index) {
			return nil, fmt.Errorf("%w: the contribution of share %d is there twice", ErrShare, c.index)
		}
		indices = append(indices, c.index)
	}
	threshold := w.commitments.Threshold()
	if len(indices) < threshold {
		return nil, fmt.Errorf("%w: %d contributions are too few, %d are needed", ErrShare, len(indices), threshold)
	}
	indices = indices[:threshold]
	weights := make([]*bls12381.Scalar, threshold)
	for i := range weights {
		weights[i] = lagrange(indices, i, 0)
	}
	sums := make([]*bls12381.G1, len(w.items))
	inParallel(len(sums), func(i int) {
		sum, part := new(bls12381.G1), new(bls12381.G1)
		sum.SetIdentity()
		for j, weight := range weights {
			part.ScalarMult(weight, contributions[j].points[i])
			sum.Add(sum, part)
		}
		sums[i] = sum
	})
	m := &Made{params: w.commitments.params, made: make(map[madeKey]*bls12381.G1, len(sums))}
	for i, x := range w.items {
		m.made[x.key()] = sums[i]
	}
	return m, nil
}

// Key returns the private key of id, if it was made.
func (m *Made) Key(id Identity) (*PrivateKey, bool) {
	x := workItem{message: []byte(id.String()), dst: dstIdentity}
	d, ok := m.made[x.key()]
	if !ok {
		return nil, false
	}
	own := *d // the caller destroys it
	return &PrivateKey{params: m.params, id: id, q: id.point(), d: &own}, true
}

// Statement returns the statement of a document, if it was made.
func (m *Made) Statement(kind Kind, document []byte) ([]byte, bool) {
	message, err := m.params.statementMessage(kind, document)
	if err != nil {
		return nil, false
	}
	x := workItem{message: message, dst: dstStatement}
	s, ok := m.made[x.key()]
	if !ok {
		return nil, false
	}
	return s.BytesCompressed(), true
}

// Destroy overwrites what was made as far as Go allows; m is unusable afterwards.
func (m *Made) Destroy() {
	for _, p := range m.made {
		*p = bls12381.G1{}
	}
	clear(m.made)
}

// inParallel calls do for 0 to n-1, on all processors.
func inParallel(n int, do func(i int)) {
	workers := min(runtime.GOMAXPROCS(0), n)
	var all sync.WaitGroup
	for worker := range workers {
		all.Go(func() {
			for i := worker; i < n; i += workers {
				do(i)
			}
		})
	}
	all.Wait()
}
