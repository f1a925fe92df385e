package custody_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// holder is who has a share, by an age key of the small kind.
type holder struct {
	opener bundle.Opener
	to     bundle.Recipient
}

func newHolder(t testing.TB) holder {
	t.Helper()
	i, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	o, r, err := bundle.ParseOpener([]byte(i.String()))
	if err != nil {
		t.Fatal(err)
	}
	return holder{o, r}
}

func setup(t testing.TB) *ibc.MasterSecret {
	t.Helper()
	m, err := ibc.Setup(rand.Reader, 1)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

var names = []string{"alice", "bob", "carol", "dora", "emil"}

func deal(t testing.TB, m *ibc.MasterSecret, threshold int, serial uint64, names ...string) ([]*custody.Share, *custody.Sharing) {
	t.Helper()
	shares, s, err := custody.Deal(m, rand.Reader, threshold, serial, names)
	if err != nil {
		t.Fatal(err)
	}
	return shares, s
}

func seal(t testing.TB, x *custody.Share, h holder) []byte {
	t.Helper()
	sealed, err := x.Seal(h.to)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// TestSealedShares: what was sealed for its holder is opened with the public
// description, as it was written and read, and makes the secret.
func TestSealedShares(t *testing.T) {
	m, h := setup(t), newHolder(t)
	dealt, s := deal(t, m, 3, 1, names...)
	data, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	read, err := custody.ParseSharing(data)
	if err != nil || read.ID() != s.ID() || read.Serial() != 1 || read.Threshold() != 3 || fmt.Sprint(read.Holders()) != fmt.Sprint(names) {
		t.Fatalf("%+v, %v", read, err)
	}
	var shares []*custody.Share
	for i, x := range dealt {
		opened, err := custody.Open(seal(t, x, h), h.opener, read)
		if err != nil || opened.Index() != i+1 || opened.Holder != names[i] {
			t.Fatalf("%v, %v", opened, err)
		}
		shares = append(shares, opened)
	}
	for _, chosen := range [][]*custody.Share{shares[:3], {shares[4], shares[0], shares[2]}, shares} {
		whole, err := custody.Together(chosen)
		if err != nil || !bytes.Equal(whole.Bytes(), m.Bytes()) {
			t.Fatal(err)
		}
	}
	lost, err := custody.Recover(shares[2:], 1)
	if err != nil || lost.Holder != "alice" {
		t.Fatal(err)
	}
	if _, err := custody.Open(seal(t, lost, h), h.opener, read); err != nil {
		t.Fatal(err)
	}
	if want := "share-2-bob.s1.share.age"; s.FileName(2) != want {
		t.Errorf("%s, want %s", s.FileName(2), want)
	}
}

// TestSharesThatDoNotFit: whatever is wrong is told apart.
func TestSharesThatDoNotFit(t *testing.T) {
	m, h := setup(t), newHolder(t)
	shares, s := deal(t, m, 3, 2, names...)
	before, _ := deal(t, m, 3, 1, names...)
	again, _ := deal(t, m, 3, 2, names...)
	later, _ := deal(t, m, 3, 3, names...)
	foreign, _ := deal(t, setup(t), 3, 2, names...)
	for what, c := range map[string]struct {
		share *custody.Share
		want  error
		text  string
	}{
		"refreshed since":   {before[1], custody.ErrSharing, "of sharing 1, which was refreshed since: this is sharing 2"},
		"later":             {later[1], custody.ErrSharing, "of sharing 3, which is later"},
		"an unfinished run": {again[1], custody.ErrSharing, "its sharing_sha256 is "},
		"another ceremony":  {foreign[1], custody.ErrCeremony, "its params_id is "},
	} {
		_, err := custody.Open(seal(t, c.share, h), h.opener, s)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := custody.Open(seal(t, shares[0], h), newHolder(t).opener, s); !errors.Is(err, bundle.ErrRecipient) {
		t.Errorf("for somebody else: %v", err)
	}
	for what, c := range map[string]struct {
		shares []*custody.Share
		want   error
		text   string
	}{
		"none":        {nil, custody.ErrTooFew, "there are none"},
		"too few":     {shares[1:3], custody.ErrTooFew, "2 of the 3 that are needed; bring 1 more, of alice, dora, emil"},
		"duplicated":  {[]*custody.Share{shares[0], shares[1], shares[1]}, custody.ErrTwice, "share 2 of bob"},
		"old and new": {[]*custody.Share{shares[0], shares[1], before[2]}, custody.ErrSharing, "share 3 of carol is of another than share 1 of alice"},
	} {
		if _, err := custody.Together(c.shares); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := custody.Recover(c.shares, 4); !errors.Is(err, c.want) {
			t.Errorf("%s, recovered: %v", what, err)
		}
	}
}

// TestOptions: what sharings there are.
func TestOptions(t *testing.T) {
	many := make([]string, custody.MaxHolders+1)
	for i := range many {
		many[i] = fmt.Sprintf("holder-%d", i+1)
	}
	for _, c := range []struct {
		threshold int
		holders   []string
		ok        bool
	}{
		{2, names[:2], true}, {5, names, true}, {3, many[:custody.MaxHolders], true}, {2, []string{"M.Etxeberria", "x_1-2"}, true},
		{1, names, false}, {6, names, false}, {3, many, false}, {0, nil, false},
		{2, []string{"alice", "Alice"}, false}, {2, []string{"alice", ""}, false}, {2, []string{"alice", "a/b"}, false},
		{2, []string{"alice", ".b"}, false}, {2, []string{"alice", strings.Repeat("b", 33)}, false}, {2, []string{"alice", "bö"}, false},
	} {
		if err := custody.CheckOptions(c.threshold, c.holders); (err == nil) != c.ok || err != nil && !errors.Is(err, custody.ErrOptions) {
			t.Errorf("%d of %q: %v", c.threshold, c.holders, err)
		}
	}
}
