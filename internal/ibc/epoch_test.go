package ibc

import (
	"crypto/rand"
	"errors"
	"testing"
)

// epochs returns the master secrets of epochs 1 to n.
func epochs(t *testing.T, n uint32) []*MasterSecret {
	t.Helper()
	var out []*MasterSecret
	for epoch := range n {
		m, err := Setup(rand.Reader, epoch+1)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, m)
	}
	return out
}

func succeed(t *testing.T, from, to *MasterSecret) Succession {
	t.Helper()
	s, err := from.Succeed(to.Params())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFollow(t *testing.T) {
	e := epochs(t, 4)
	stranger := epochs(t, 2)
	step := func(from, to int) Succession { return succeed(t, e[from-1], e[to-1]) }
	forged := step(1, 2)
	forged.Statement = succeed(t, stranger[0], e[1]).Statement
	otherKind := step(1, 2)
	document, err := EpochDocument(e[1].Params())
	if err != nil {
		t.Fatal(err)
	}
	if otherKind.Statement, err = e[0].Sign(KindAnchor, document); err != nil {
		t.Fatal(err)
	}
	renumbered := step(1, 2) // the same point, called another epoch
	ppub := e[1].Params().Ppub()
	if renumbered.Params, err = NewParams(3, ppub[:]); err != nil {
		t.Fatal(err)
	}
	own := e[0].Params().Ppub()
	itself, err := NewParams(2, own[:])
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		from  int
		to    *Params
		chain []Succession
		ok    bool
	}{
		{"the next epoch", 1, e[1].Params(), []Succession{step(1, 2)}, true},
		{"step by step", 1, e[3].Params(), []Succession{step(1, 2), step(2, 3), step(3, 4)}, true},
		{"an epoch left out", 1, e[3].Params(), []Succession{step(1, 3), step(3, 4)}, true},
		{"a chain from an earlier epoch", 3, e[3].Params(), []Succession{step(1, 2), step(2, 3), step(3, 4)}, true},
		{"a chain that goes on", 1, e[1].Params(), []Succession{step(1, 2), step(2, 3)}, true},
		{"nothing to do", 2, e[1].Params(), nil, true},
		{"no chain", 1, e[1].Params(), nil, false},
		{"a chain that ends early", 1, e[2].Params(), []Succession{step(1, 2)}, false},
		{"a chain with a gap", 1, e[3].Params(), []Succession{step(1, 2), step(3, 4)}, false},
		{"a chain in another order", 1, e[2].Params(), []Succession{step(2, 3), step(1, 2)}, false},
		{"backwards", 2, e[0].Params(), []Succession{step(1, 2)}, false},
		{"another PKG's statement", 1, e[1].Params(), []Succession{forged}, false},
		{"a statement of another kind", 1, e[1].Params(), []Succession{otherKind}, false},
		{"another epoch's number", 1, renumbered.Params, []Succession{renumbered}, false},
		{"another PKG altogether", 1, stranger[1].Params(), []Succession{succeed(t, stranger[0], stranger[1])}, false},
		{"the same master secret under a later number", 1, itself, []Succession{{Params: itself, Statement: step(1, 2).Statement}}, false},
	} {
		err := e[tt.from-1].Params().Follow(tt.chain, tt.to)
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrSuccession) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	for _, next := range []*Params{e[0].Params(), itself, stranger[0].Params()} {
		if _, err := e[0].Succeed(next); !errors.Is(err, ErrEpoch) {
			t.Errorf("epoch %d was stated to follow epoch 1: %v", next.Epoch(), err)
		}
	}
}
