package pkgen_test

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

// ceremony is how a master secret is shared out in tests: every holder has the
// same age key.
type ceremony struct {
	party   party
	options pkgen.SharesOptions
}

func newCeremony(t testing.TB, threshold int, names ...string) ceremony {
	t.Helper()
	x := ceremony{party: newParty(t), options: pkgen.SharesOptions{Threshold: threshold}}
	for _, name := range names {
		x.options.Holders = append(x.options.Holders, pkgen.Holder{Name: name, To: x.party.to})
	}
	return x
}

// initShared makes a PKG in shares in a new directory.
func initShared(t testing.TB, x ceremony) pkgen.Config {
	t.Helper()
	c := config(filepath.Join(t.TempDir(), "pkg"))
	c.Random = rand.Reader
	if _, err := pkgen.Init(c, passphrase, pkgen.InitOptions{Shares: &x.options}); err != nil {
		t.Fatal(err)
	}
	return c
}

// bring opens some shares of a sharing, from the directory of the PKG.
func (x ceremony) bring(c pkgen.Config, s *custody.Sharing, indices ...int) ([]*custody.Share, error) {
	var shares []*custody.Share
	for _, i := range indices {
		sealed, err := os.ReadFile(filepath.Join(c.Dir, pkgen.SharesDir, s.FileName(i)))
		if err != nil {
			return nil, err
		}
		share, err := custody.Open(sealed, x.party.opener, s)
		if err != nil {
			return nil, err
		}
		shares = append(shares, share)
	}
	return shares, nil
}

// open opens the PKG with shares of the sharing in force.
func (x ceremony) open(c pkgen.Config, indices ...int) (*pkgen.PKG, *custody.Sharing, error) {
	ledger, err := pkgen.ReadPublic(c.Dir)
	if err != nil {
		return nil, nil, err
	}
	s, err := pkgen.ReadSharing(c.Dir, ledger)
	if err != nil {
		return nil, nil, err
	}
	shares, err := x.bring(c, s, indices...)
	if err != nil {
		return nil, nil, err
	}
	p, err := pkgen.OpenShares(c, shares)
	return p, s, err
}

// holds demands that the PKG is whole: every share of the sharing in force is
// there and holds, no other file is, and enough of them open it.
func (x ceremony) holds(t testing.TB, c pkgen.Config, indices ...int) *custody.Sharing {
	t.Helper()
	p, s, err := x.open(c, indices...)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := pkgen.VerifyDir(c.Dir); err != nil {
		t.Fatal(err)
	}
	for i := range s.Holders() {
		if _, err := x.bring(c, s, i+1); err != nil {
			t.Fatal(err)
		}
	}
	noTemps(t, c.Dir)
	for _, name := range []string{pkgen.MasterFile, "shares.pending.json"} {
		if _, err := os.Lstat(filepath.Join(c.Dir, name)); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("%s is there: %v", name, err)
		}
	}
	return s
}

func shareFiles(t testing.TB, c pkgen.Config) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(c.Dir, pkgen.SharesDir))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestShares: a PKG in shares does what one in one piece does, and a passphrase
// does not open it.
func TestShares(t *testing.T) {
	x := newCeremony(t, 3, "alice", "bob", "carol", "dora", "emil")
	c := initShared(t, x)
	x.holds(t, c, 2, 4, 5)
	if _, err := pkgen.Open(c, passphrase); !errors.Is(err, pkgen.ErrShared) || !strings.Contains(err.Error(), "3 of those of alice, bob, carol, dora, emil") {
		t.Fatal(err)
	}
	if _, _, err := x.open(c, 1, 2); !errors.Is(err, custody.ErrTooFew) {
		t.Fatal(err)
	}
	if _, _, err := x.open(c, 1, 2, 2); !errors.Is(err, custody.ErrTwice) {
		t.Fatal(err)
	}
	clm := newParty(t)
	o := pkgen.IssueOptions{Medium: filepath.Join(t.TempDir(), "usb")}
	p, s, err := x.open(c, 1, 3, 5)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Issue(t.Context(), []pkgen.Request{{Role: ibc.RoleCLM, Name: "clm-1", Recipient: &clm.to}}, o)
	if err := errors.Join(err, p.Close()); err != nil {
		t.Fatal(err)
	}
	verify(t, c, o.Medium)
	// What a share is of another ceremony says so.
	other := initShared(t, x)
	foreign, err := os.ReadFile(filepath.Join(other.Dir, pkgen.SharesDir, s.FileName(1)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := custody.Open(foreign, x.party.opener, s); !errors.Is(err, custody.ErrCeremony) {
		t.Fatal(err)
	}
}

// TestAttackOtherDescription: whoever writes to the directory replaces
// shares.json by that of a sharing of the same secret parameters whose shares he
// has made. The ledger, which the master secret signed, names another.
func TestAttackOtherDescription(t *testing.T) {
	x := newCeremony(t, 2, "alice", "bob")
	c := initShared(t, x)
	ledger, err := pkgen.ReadPublic(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	thief, err := ibc.Setup(rand.Reader, 1)
	if err != nil {
		t.Fatal(err)
	}
	_, own, err := thief.Split(rand.Reader, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	commitments, err := ibc.ParseCommitments(ledger.Params, 2, own.Points())
	if err != nil {
		t.Fatal(err)
	}
	s, err := custody.NewSharing(commitments, 1, []string{"alice", "bob"})
	if err != nil {
		t.Fatal(err)
	}
	data, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.Dir, pkgen.SharesFile), data, keyfile.PublicPerm); err != nil {
		t.Fatal(err)
	}
	if _, err := pkgen.ReadSharing(c.Dir, ledger); !errors.Is(err, pkgen.ErrForeign) {
		t.Errorf("read: %v", err)
	}
	if _, err := pkgen.VerifyDir(c.Dir); !errors.Is(err, pkgen.ErrForeign) {
		t.Errorf("verified: %v", err)
	}
}

// TestAttackSharesBeforeRefresh: a holder who left has kept the share, and another
// is talked into lending theirs of the sharing before. They open nothing, nor do
// they with new ones.
func TestAttackSharesBeforeRefresh(t *testing.T) {
	x := newCeremony(t, 2, "alice", "bob", "mallory")
	c := initShared(t, x)
	p, before, err := x.open(c, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	next := x.options
	next.Holders = []pkgen.Holder{x.options.Holders[0], x.options.Holders[1], {Name: "carol", To: x.party.to}}
	made, err := p.Reshare(next)
	if err := errors.Join(err, p.Close()); err != nil {
		t.Fatal(err)
	}
	if made.Sharing.Params().ID() != before.Params().ID() {
		t.Fatal("another secret")
	}
	old, err := x.bring(c, before, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pkgen.OpenShares(c, old); !errors.Is(err, custody.ErrSharing) {
		t.Errorf("old ones: %v", err)
	}
	for range 2 { // the shares were destroyed
		old, err = x.bring(c, before, 3)
		if err != nil {
			t.Fatal(err)
		}
		fresh, err := x.bring(c, made.Sharing, 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := pkgen.OpenShares(c, append(fresh, old...)); !errors.Is(err, custody.ErrSharing) {
			t.Errorf("mixed: %v", err)
		}
	}
	sealed, err := os.ReadFile(filepath.Join(c.Dir, pkgen.SharesDir, before.FileName(3)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := custody.Open(sealed, x.party.opener, made.Sharing); !errors.Is(err, custody.ErrSharing) {
		t.Errorf("as a new one: %v", err)
	}
}

// TestLedgerOfSharings: what does not follow is refused.
func TestLedgerOfSharings(t *testing.T) {
	x := newCeremony(t, 2, "alice", "bob")
	c := initShared(t, x)
	p, s, err := x.open(c, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	id, other := s.ID(), bundle.Hash{1}
	names := []string{"alice", "bob"}
	for what, f := range map[string]pkgen.Fact{
		"nothing":                     {Type: "shares"},
		"not after the one before":    {Type: "shares", Sharing: &other, Serial: 2, Threshold: 2, Holders: names},
		"after another":               {Type: "shares", Sharing: &other, Previous: &other, Serial: 2, Threshold: 2, Holders: names},
		"under the same number":       {Type: "shares", Sharing: &other, Previous: &id, Serial: 1, Threshold: 2, Holders: names},
		"a threshold of 1":            {Type: "shares", Sharing: &other, Previous: &id, Serial: 2, Threshold: 1, Holders: names},
		"a share of another sharing":  {Type: "shares", Sharing: &other, Recovered: 1},
		"a share that there is not":   {Type: "shares", Sharing: &id, Recovered: 3},
		"a share of a number below 1": {Type: "shares", Sharing: &id, Recovered: -1},
	} {
		if err := p.CheckFact(f); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	for _, f := range []pkgen.Fact{
		{Type: "shares", Sharing: &other, Previous: &id, Serial: 2, Threshold: 2, Holders: names},
		{Type: "shares", Sharing: &id, Recovered: 2},
	} {
		if err := p.CheckFact(f); err != nil {
			t.Error(err)
		}
	}
}
