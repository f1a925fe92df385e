package ibc_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/ibc"
)

// shared is a master secret in shares.
func shared(t interface{ Fatal(...any) }, threshold, n int) (*ibc.MasterSecret, []*ibc.Share, *ibc.Commitments) {
	m, err := ibc.Setup(rand.Reader, 1)
	if err != nil {
		t.Fatal(err)
	}
	shares, c, err := m.Split(rand.Reader, threshold, n)
	if err != nil {
		t.Fatal(err)
	}
	return m, shares, c
}

func aDevice(t interface{ Fatal(...any) }) ibc.Identity {
	id, err := ibc.NewIdentity(ibc.RoleDevice, "plc-0001.bilbao", 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestThreshold: enough shares, whichever, make the secret, keys and statements
// as the whole secret does; fewer make nothing.
func TestThreshold(t *testing.T) {
	t.Parallel()
	// A pairing costs milliseconds, and some tens of them with the race detector:
	// too much for a hundred draws.
	random := mathrand.New(mathrand.NewPCG(1, 2))
	for _, x := range [][3]int{{1, 1, 1}, {1, 3, 1}, {2, 2, 2}, {2, 3, 2}, {2, 3, 3}, {3, 5, 3}, {3, 5, 4}, {5, 5, 5}} {
		threshold, n := x[0], x[1]
		m, shares, c := shared(t, threshold, n)
		chosen := slices.Clone(shares)
		random.Shuffle(n, func(i, j int) { chosen[i], chosen[j] = chosen[j], chosen[i] })
		chosen = chosen[:x[2]]
		id, document := aDevice(t), []byte("a manifest")

		whole, err := ibc.Recombine(chosen)
		if err != nil || !bytes.Equal(whole.Bytes(), m.Bytes()) {
			t.Fatalf("recombined: %v", err)
		}
		var keys, statements []ibc.Partial
		for _, x := range chosen {
			key, err := x.Extract(id)
			if err != nil {
				t.Fatal(err)
			}
			statement, err := x.Sign(ibc.KindManifest, document)
			if err != nil {
				t.Fatal(err)
			}
			keys, statements = append(keys, key), append(statements, statement)
		}
		want, err := m.Extract(id)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.CombineKey(id, keys); err != nil || !bytes.Equal(got.Bytes(), want.Bytes()) {
			t.Fatalf("key: %v", err)
		}
		signed, err := m.Sign(ibc.KindManifest, document)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.CombineStatement(ibc.KindManifest, document, statements); err != nil || !bytes.Equal(got, signed) {
			t.Fatalf("statement: %v", err)
		}

		few := chosen[:threshold-1]
		if _, err := ibc.Recombine(few); !errors.Is(err, ibc.ErrShare) {
			t.Fatalf("%d of %d recombined: %v", len(few), threshold, err)
		}
		if _, err := c.CombineKey(id, keys[:threshold-1]); !errors.Is(err, ibc.ErrShare) {
			t.Fatalf("%d of %d made a key: %v", len(few), threshold, err)
		}
	}
}

// TestContributionIsNamed: a holder whose contribution does not hold is named,
// and so is each of several.
func TestContributionIsNamed(t *testing.T) {
	t.Parallel()
	_, shares, c := shared(t, 3, 5)
	_, others, _ := shared(t, 3, 5)
	id := aDevice(t)
	other, err := ibc.NewIdentity(ibc.RoleDevice, "plc-0002.bilbao", 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	contribution := func(x *ibc.Share, of ibc.Identity) ibc.Partial {
		t.Helper()
		p, err := x.Extract(of)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	flipped := contribution(shares[3], id)
	flipped.Point[20] ^= 1
	partials := []ibc.Partial{
		contribution(shares[0], id), contribution(shares[1], other), contribution(others[2], id), flipped, contribution(shares[4], id),
	}
	_, err = c.CombineKey(id, partials)
	for i, named := range []bool{false, true, true, true, false} {
		if got := err != nil && strings.Contains(err.Error(), fmt.Sprintf("share %d ", i+1)); got != named {
			t.Errorf("share %d is named: %v, want %v: %v", i+1, got, named, err)
		}
	}
	var partial *ibc.PartialError
	if !errors.As(err, &partial) || partial.Index != 2 || !errors.Is(err, ibc.ErrShare) {
		t.Errorf("%v", err)
	}
	for what, p := range map[string][]ibc.Partial{
		"twice":    {partials[0], partials[0], partials[4]},
		"unknown":  {partials[0], partials[4], {Index: 6, Point: partials[0].Point}},
		"number 0": {partials[0], partials[4], {Point: partials[0].Point}},
	} {
		if _, err := c.CombineKey(id, p); !errors.Is(err, ibc.ErrShare) {
			t.Errorf("%s: %v", what, err)
		}
	}
	later, err := ibc.NewIdentity(ibc.RoleDevice, "plc-0001.bilbao", 2, 1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := shares[0].Extract(later); !errors.Is(err, ibc.ErrEpoch) {
		t.Errorf("an identity of another epoch: %v", err)
	}
}

// TestShareEncoding: a share and the commitments come back as they were, and no
// other value is taken for the share.
func TestShareEncoding(t *testing.T) {
	t.Parallel()
	m, shares, c := shared(t, 2, 3)
	again, err := ibc.ParseCommitments(m.Params(), c.Shares(), c.Points())
	if err != nil || again.Threshold() != 2 || again.Shares() != 3 {
		t.Fatalf("%+v, %v", again, err)
	}
	for _, x := range shares {
		b, err := x.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		y, err := ibc.NewShare(again, x.Index(), b)
		if err != nil || y.String() != x.String() {
			t.Fatalf("%v, %v", y, err)
		}
		if strings.Contains(fmt.Sprintf("%v %+v %#v", x, x, x), fmt.Sprintf("%x", b[:8])) {
			t.Error("a share prints its value")
		}
		for bit := range 8 * len(b) {
			wrong := bytes.Clone(b)
			wrong[bit/8] ^= 1 << (bit % 8)
			if _, err := ibc.NewShare(again, x.Index(), wrong); err == nil {
				t.Fatalf("bit %d does not matter", bit)
			}
			if bit > 16 {
				break // each costs a millisecond and more
			}
		}
		if _, err := ibc.NewShare(again, x.Index()%3+1, b); !errors.Is(err, ibc.ErrShare) {
			t.Errorf("under another number: %v", err)
		}
	}
	for what, bad := range map[string]func() error{
		"no shares":           func() error { _, err := ibc.ParseCommitments(m.Params(), 0, nil); return err },
		"too many shares":     func() error { _, err := ibc.ParseCommitments(m.Params(), 256, nil); return err },
		"more than there are": func() error { _, err := ibc.ParseCommitments(m.Params(), 1, c.Points()); return err },
		"no point":            func() error { _, err := ibc.ParseCommitments(m.Params(), 3, [][]byte{make([]byte, 96)}); return err },
		"threshold 0":         func() error { _, _, err := m.Split(rand.Reader, 0, 3); return err },
		"above the shares":    func() error { _, _, err := m.Split(rand.Reader, 4, 3); return err },
		"a share 0":           func() error { b, _ := shares[0].Bytes(); _, err := ibc.NewShare(again, 0, b); return err },
	} {
		if err := bad(); !errors.Is(err, ibc.ErrShare) && !errors.Is(err, ibc.ErrEncoding) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestShareRecovered: a lost share is made of enough others; shares of two
// secrets, or one share twice, make none.
func TestShareRecovered(t *testing.T) {
	t.Parallel()
	_, shares, _ := shared(t, 3, 5)
	_, others, _ := shared(t, 3, 5)
	lost, err := ibc.RecoverShare([]*ibc.Share{shares[4], shares[0], shares[2]}, 2)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := lost.Bytes()
	want, _ := shares[1].Bytes()
	if !bytes.Equal(got, want) {
		t.Error("it is another one")
	}
	for what, s := range map[string][]*ibc.Share{
		"none": nil, "too few": shares[:2], "one twice": {shares[0], shares[1], shares[1]}, "of two secrets": {shares[0], shares[1], others[2]},
	} {
		if _, err := ibc.RecoverShare(s, 4); !errors.Is(err, ibc.ErrShare) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := ibc.Recombine(s); !errors.Is(err, ibc.ErrShare) {
			t.Errorf("%s, recombined: %v", what, err)
		}
	}
}

// FuzzParseCommitments: what is taken comes back the same.
func FuzzParseCommitments(f *testing.F) {
	m, _, c := shared(f, 3, 5)
	f.Add(5, bytes.Join(c.Points(), nil))
	f.Add(1, []byte{})
	f.Fuzz(func(t *testing.T, shares int, joined []byte) {
		var points [][]byte
		for ; len(joined) > 0 && len(points) < 8; joined = joined[min(ibc.PpubSize, len(joined)):] {
			points = append(points, joined[:min(ibc.PpubSize, len(joined))])
		}
		c, err := ibc.ParseCommitments(m.Params(), shares, points)
		if err != nil {
			return
		}
		if c.Shares() != shares || c.Threshold() != len(points)+1 || !bytes.Equal(bytes.Join(c.Points(), nil), bytes.Join(points, nil)) {
			t.Errorf("%d of %d", c.Threshold(), c.Shares())
		}
	})
}
