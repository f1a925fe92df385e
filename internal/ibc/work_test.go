package ibc_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cloudflare/circl/ecc/bls12381"

	"github.com/edgeclm/edgeclm/internal/ibc"
)

// someWork is a Work of n keys and n statements.
func someWork(t testing.TB, c *ibc.Commitments, n int) (*ibc.Work, []ibc.Identity) {
	t.Helper()
	w := ibc.NewWork(c)
	var ids []ibc.Identity
	for i := range n {
		id, err := ibc.NewIdentity(ibc.RoleDevice, fmt.Sprintf("plc-%04d", i), 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.Key(id), w.Statement(ibc.KindBundle, document(i))); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return w, ids
}

func document(i int) []byte { return fmt.Appendf(nil, "the bundle of device %d", i) }

func contribute(t testing.TB, x *ibc.Share, w *ibc.Work) ibc.Contribution {
	t.Helper()
	c, err := x.Contribute(w)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestWork: what enough holders contribute to makes the keys and statements that
// the whole secret makes, whoever of them it is.
func TestWork(t *testing.T) {
	t.Parallel()
	const n = 20
	m, shares, c := shared(t, 3, 5)
	w, ids := someWork(t, c, n)
	if w.Len() != 2*n {
		t.Fatalf("%d items", w.Len())
	}
	var checked []*ibc.Checked
	for _, i := range []int{4, 0, 2} {
		// Each holder builds the list anew, from what he read.
		own, _ := someWork(t, shares[i].Commitments(), n)
		x, err := w.Check(rand.Reader, contribute(t, shares[i], own))
		if err != nil {
			t.Fatal(err)
		}
		if x.Index() != i+1 {
			t.Errorf("index %d", x.Index())
		}
		checked = append(checked, x)
	}
	made, err := w.Combine(checked)
	if err != nil {
		t.Fatal(err)
	}
	for i, id := range ids {
		want, err := m.Extract(id)
		if err != nil {
			t.Fatal(err)
		}
		key, ok := made.Key(id)
		if !ok || !bytes.Equal(key.Bytes(), want.Bytes()) || key.Identity() != id {
			t.Fatalf("the key of %s is another", id)
		}
		key.Destroy() // the next one is a key of its own
		if again, _ := made.Key(id); !bytes.Equal(again.Bytes(), want.Bytes()) {
			t.Fatal("a key was destroyed with another")
		}
		signed, err := m.Sign(ibc.KindBundle, document(i))
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := made.Statement(ibc.KindBundle, document(i)); !ok || !bytes.Equal(got, signed) {
			t.Fatalf("statement %d is another", i)
		}
		if _, ok := made.Statement(ibc.KindLedger, document(i)); ok {
			t.Fatal("a statement of another kind was made")
		}
	}
	if _, ok := made.Key(ibc.Identity{Role: ibc.RoleCLM, Name: "clm-1", Epoch: 1, Generation: 1}); ok {
		t.Error("a key was made that nobody contributed to")
	}
	for what, x := range map[string][]*ibc.Checked{
		"too few": checked[:2], "twice": {checked[0], checked[1], checked[1]}, "none": nil,
	} {
		if _, err := w.Combine(x); !errors.Is(err, ibc.ErrShare) {
			t.Errorf("%s: %v", what, err)
		}
	}
	other, _ := someWork(t, c, n)
	if _, err := other.Combine(checked); !errors.Is(err, ibc.ErrShare) {
		t.Errorf("checked for another list: %v", err)
	}
	if _, err := w.Combine(checked[:3:3]); err != nil {
		t.Error(err)
	}
	made.Destroy()
	if _, ok := made.Key(ids[0]); ok {
		t.Error("destroyed, and there is a key")
	}
}

// TestAttackWrongContributionIsNamed: a holder contributes what does not hold, in
// one place or several: noise, another identity's part, a share of another
// ceremony, nothing. He is named, with what is wrong.
func TestAttackWrongContributionIsNamed(t *testing.T) {
	t.Parallel()
	const n = 6
	_, shares, c := shared(t, 2, 3)
	_, others, _ := shared(t, 2, 3)
	w, _ := someWork(t, c, n)
	foreign, _ := someWork(t, others[1].Commitments(), n)
	good := contribute(t, shares[1], w)
	point := func(b []byte, i int) []byte { return b[i*48 : (i+1)*48] }
	for what, x := range map[string]struct {
		forge func(points []byte) []byte
		names []string
	}{
		"a flipped bit":   {func(p []byte) []byte { p[2*48+20] ^= 1; return p }, []string{"plc-0001/"}},
		"a negated point": {func(p []byte) []byte { p[4*48] ^= 0x20; return p }, []string{"plc-0002/"}},
		"two keys exchanged": {func(p []byte) []byte {
			a := slices.Clone(point(p, 0))
			copy(point(p, 0), point(p, 4))
			copy(point(p, 4), a)
			return p
		}, []string{"plc-0000/", "plc-0002/"}},
		"another ceremony's": {func([]byte) []byte { return contribute(t, others[1], foreign).Points }, []string{"plc-0000/", "bundle", "plc-0001/", "others"}},
		"another share's":    {func([]byte) []byte { return contribute(t, shares[0], w).Points }, []string{"plc-0000/", "others"}},
		"too short":          {func(p []byte) []byte { return p[:len(p)-48] }, []string{"bytes"}},
		"nothing":            {func([]byte) []byte { return nil }, []string{"0 bytes"}},
		"infinity":           {func(p []byte) []byte { copy(point(p, 6), append([]byte{0xc0}, make([]byte, 47)...)); return p }, []string{"plc-0003/"}},
	} {
		_, err := w.Check(rand.Reader, ibc.Contribution{Index: 2, Points: x.forge(slices.Clone(good.Points))})
		var partial *ibc.PartialError
		if !errors.As(err, &partial) || partial.Index != 2 || !errors.Is(err, ibc.ErrShare) {
			t.Errorf("%s: %v", what, err)
			continue
		}
		for _, name := range x.names {
			if !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %q is not named: %v", what, name, err)
			}
		}
	}
	for _, index := range []int{0, 4, -1} {
		if _, err := w.Check(rand.Reader, ibc.Contribution{Index: index, Points: good.Points}); !errors.Is(err, ibc.ErrShare) {
			t.Errorf("share %d: %v", index, err)
		}
	}
	if _, err := w.Check(rand.Reader, good); err != nil {
		t.Error(err)
	}
	if _, err := others[0].Contribute(w); !errors.Is(err, ibc.ErrShare) {
		t.Errorf("a share of another secret contributed: %v", err)
	}
}

// TestAttackErrorsThatCancelOut: a holder adds a point to one part of his
// contribution and takes it from another, so that their plain sum is right. A
// test without coefficients accepts it, and the device gets a key that is none.
func TestAttackErrorsThatCancelOut(t *testing.T) {
	t.Parallel()
	_, shares, c := shared(t, 2, 3)
	w, _ := someWork(t, c, 4)
	good := contribute(t, shares[0], w)
	points := slices.Clone(good.Points)
	shift := new(bls12381.G1)
	shift.Hash([]byte("anything"), []byte("a test"))
	for i, at := range []int{0, 6} {
		p := new(bls12381.G1)
		if err := p.SetBytes(points[at*48 : (at+1)*48]); err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			shift.Neg()
		}
		p.Add(p, shift)
		copy(points[at*48:], p.BytesCompressed())
	}
	if !bytes.Equal(sum(t, points), sum(t, good.Points)) {
		t.Fatal("the errors do not cancel out")
	}
	_, err := w.Check(rand.Reader, ibc.Contribution{Index: 1, Points: points})
	var partial *ibc.PartialError
	if !errors.As(err, &partial) || !strings.Contains(partial.What, "plc-0000/") || !strings.Contains(partial.What, "plc-0003/") {
		t.Fatalf("not found: %v", err)
	}
	// With coefficients that he foresees (all the same) it would pass: they have
	// to be random.
	if _, err := w.Check(constant(1), ibc.Contribution{Index: 1, Points: points}); err != nil {
		t.Errorf("the attack is none: %v", err)
	}
}

// constant is a reader of one byte again and again.
type constant byte

func (c constant) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(c)
	}
	return len(p), nil
}

func sum(t *testing.T, points []byte) []byte {
	t.Helper()
	sum := new(bls12381.G1)
	sum.SetIdentity()
	for b := range slices.Chunk(points, 48) {
		p := new(bls12381.G1)
		if err := p.SetBytes(b); err != nil {
			t.Fatal(err)
		}
		sum.Add(sum, p)
	}
	return sum.BytesCompressed()
}

func BenchmarkWork(b *testing.B) {
	const n = 100
	m, err := ibc.Setup(rand.Reader, 1)
	if err != nil {
		b.Fatal(err)
	}
	shares, c, err := m.Split(rand.Reader, 3, 5)
	if err != nil {
		b.Fatal(err)
	}
	perIdentity := func(b *testing.B) { b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/identity") }
	b.Run("contribute", func(b *testing.B) {
		for b.Loop() {
			w, _ := someWork(b, c, n)
			contribute(b, shares[0], w)
		}
		perIdentity(b)
	})
	w, _ := someWork(b, c, n)
	var checked []*ibc.Checked
	for _, x := range shares[:3] {
		ok, err := w.Check(rand.Reader, contribute(b, x, w))
		if err != nil {
			b.Fatal(err)
		}
		checked = append(checked, ok)
	}
	contribution := contribute(b, shares[0], w)
	b.Run("check", func(b *testing.B) {
		for b.Loop() {
			if _, err := w.Check(rand.Reader, contribution); err != nil {
				b.Fatal(err)
			}
		}
		perIdentity(b)
	})
	b.Run("combine", func(b *testing.B) {
		for b.Loop() {
			if _, err := w.Combine(checked); err != nil {
				b.Fatal(err)
			}
		}
		perIdentity(b)
	})
}
