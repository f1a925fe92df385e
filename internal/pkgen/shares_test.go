package pkgen_test

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
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

// Init with shares, cut at every file operation and run again, makes one whole PKG.
func TestInitSharesCutAnywhere(t *testing.T) {
	x := newCeremony(t, 2, "alice", "bob", "carol")
	for name, mode := range modes() {
		t.Run(name, func(t *testing.T) {
			for cut := 1; ; cut++ {
				c := config(filepath.Join(t.TempDir(), "pkg"))
				c.Random = rand.Reader
				layer := keyfiletest.New(cut, mode)
				c.Files = keyfile.On(layer)
				_, err := pkgen.Init(c, passphrase, pkgen.InitOptions{Shares: &x.options})
				if !layer.Cut() {
					if err != nil || cut < 30 {
						t.Fatalf("uncut after %d operations: %v", cut-1, err)
					}
					return
				}
				if err == nil {
					t.Fatalf("cut at %d: no error", cut)
				}
				c.Files = config(c.Dir).Files
				_, err = os.Stat(filepath.Join(c.Dir, pkgen.SharesFile))
				complete := err == nil
				_, err = pkgen.Init(c, passphrase, pkgen.InitOptions{Shares: &x.options})
				if complete != errors.Is(err, pkgen.ErrExists) || !complete && err != nil {
					t.Fatalf("cut at %d (complete: %t), then: %v", cut, complete, err)
				}
				x.holds(t, c, 3, 1)
				if files := shareFiles(t, c); len(files) != 3 {
					t.Fatalf("cut at %d: %q", cut, files)
				}
			}
		})
	}
}

// A refresh, cut at every file operation: either the old shares open the PKG or
// the new ones do, and the run that follows completes it.
func TestRefreshCutAnywhere(t *testing.T) {
	x := newCeremony(t, 2, "alice", "bob", "carol")
	base := initShared(t, x)
	next := x.options
	next.Threshold, next.Holders = 3, slices.Concat(x.options.Holders, []pkgen.Holder{{Name: "dora", To: x.party.to}})
	refresh := func(c pkgen.Config) error {
		p, _, err := x.open(c, 1, 2, 3)
		if err != nil {
			return err
		}
		_, err = p.Reshare(next)
		return errors.Join(err, p.Close())
	}
	cutAnywhere(t, base, 25, refresh, func(t *testing.T, c pkgen.Config, cut int) {
		p, s, err := x.open(c, 1, 2, 3)
		if err != nil {
			t.Fatalf("cut at %d: neither the old shares nor the new ones: %v", cut, err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		if s.Serial() == 1 {
			if err := refresh(c); err != nil {
				t.Fatalf("cut at %d, run again: %v", cut, err)
			}
		}
	}, func(t *testing.T, c pkgen.Config, cut int) {
		if s := x.holds(t, c, 4, 1, 2); s.Serial() != 2 || len(shareFiles(t, c)) != 3+4 {
			t.Fatalf("cut at %d: sharing %d, files %q", cut, s.Serial(), shareFiles(t, c))
		}
	})
}

// A split, cut at every file operation: either the passphrase opens the PKG or
// the shares do, and in the end master.age is gone.
func TestSplitCutAnywhere(t *testing.T) {
	x := newCeremony(t, 2, "alice", "bob", "carol")
	base := initPKG(t)
	base.Random = rand.Reader
	split := func(c pkgen.Config) error {
		p, err := pkgen.Open(c, passphrase)
		if err != nil {
			return err
		}
		_, err = p.Reshare(x.options)
		return errors.Join(err, p.Close())
	}
	cutAnywhere(t, base, 25, split, func(t *testing.T, c pkgen.Config, cut int) {
		err := split(c)
		if errors.Is(err, pkgen.ErrShared) {
			return
		}
		if err != nil {
			t.Fatalf("cut at %d, run again: %v", cut, err)
		}
	}, func(t *testing.T, c pkgen.Config, cut int) {
		if s := x.holds(t, c, 1, 2); s.Serial() != 1 || len(shareFiles(t, c)) != 3 {
			t.Fatalf("cut at %d: sharing %d, files %q", cut, s.Serial(), shareFiles(t, c))
		}
	})
}

// The recovery of a share, cut at every file operation: the share is not there,
// and is made by another run, or it is there and holds. It is never there
// without a record.
func TestRecoverCutAnywhere(t *testing.T) {
	x := newCeremony(t, 2, "alice", "bob", "carol")
	base := initShared(t, x)
	ledger, err := pkgen.ReadPublic(base.Dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := pkgen.ReadSharing(base.Dir, ledger)
	if err != nil {
		t.Fatal(err)
	}
	lost := filepath.Join(pkgen.SharesDir, s.FileName(2))
	if err := os.Remove(filepath.Join(base.Dir, lost)); err != nil {
		t.Fatal(err)
	}
	recovered := func(c pkgen.Config) error {
		p, _, err := x.open(c, 1, 3)
		if err != nil {
			return err
		}
		_, err = p.RecoverShare(x.options.Holders[1], "", false)
		return errors.Join(err, p.Close())
	}
	cutAnywhere(t, base, 7, recovered, func(t *testing.T, c pkgen.Config, cut int) {
		_, err := os.Lstat(filepath.Join(c.Dir, lost))
		there := err == nil
		if ledger, err := pkgen.ReadPublic(c.Dir); err != nil || there && len(ledger.Entries) != 2 {
			t.Fatalf("cut at %d: the share is there without a record: %v", cut, err)
		}
		if err := recovered(c); there != errors.Is(err, keyfile.ErrExists) || !there && err != nil {
			t.Fatalf("cut at %d (there: %t), run again: %v", cut, there, err)
		}
	}, func(t *testing.T, c pkgen.Config, _ int) { x.holds(t, c, 2, 3) })
}

// cutAnywhere runs something on copies of a PKG's directory, cut at each of its
// file operations, of which there are some; then what goes on, and what checks.
func cutAnywhere(t *testing.T, base pkgen.Config, some int, run func(pkgen.Config) error, goOn, check func(t *testing.T, c pkgen.Config, cut int)) {
	for name, mode := range modes() {
		t.Run(name, func(t *testing.T) {
			for cut := 1; ; cut++ {
				c := base
				c.Dir = filepath.Join(t.TempDir(), "pkg")
				copyDir(t, base.Dir, c.Dir)
				layer := keyfiletest.New(cut, mode)
				c.Files = keyfile.On(layer)
				err := run(c)
				c.Files = base.Files
				if !layer.Cut() {
					if err != nil || cut < some {
						t.Fatalf("uncut after %d operations: %v", cut-1, err)
					}
					check(t, c, cut)
					return
				}
				if !errors.Is(err, keyfiletest.ErrCut) {
					t.Fatalf("cut at %d: error %v", cut, err)
				}
				goOn(t, c, cut)
				check(t, c, cut)
			}
		})
	}
}

// An interrupted refresh leaves share files that never counted: the next run
// wipes them, also when it has other holders, and leaves alone what is not its
// own.
func TestInterruptedRefreshIsCleared(t *testing.T) {
	x := newCeremony(t, 2, "alice", "bob")
	c := initShared(t, x)
	layer := keyfiletest.New(0, keyfiletest.Kill)
	refresh := func(names ...string) error {
		p, _, err := x.open(c, 1, 2)
		if err != nil {
			return err
		}
		o := newCeremony(t, 2, names...).options
		for i := range o.Holders {
			o.Holders[i].To = x.party.to
		}
		_, err = p.Reshare(o)
		return errors.Join(err, p.Close())
	}
	c.Files = keyfile.On(keyfiletest.New(14, keyfiletest.Kill))
	if err := refresh("alice", "bob"); !errors.Is(err, keyfiletest.ErrCut) || len(shareFiles(t, c)) < 3 {
		t.Fatalf("%v: %q", err, shareFiles(t, c))
	}
	var warned []string
	c.Warn = func(text string) { warned = append(warned, text) }
	c.Files = keyfile.On(layer)
	own := filepath.Join(c.Dir, pkgen.SharesDir, "share-2-dora.s2.share.age")
	if err := os.WriteFile(own, []byte("of somebody else"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := refresh("carol", "dora"); !errors.Is(err, keyfile.ErrExists) {
		t.Fatal(err)
	}
	if len(warned) == 0 || !strings.Contains(warned[0], "share-1-alice.s2.share.age, a share of a sharing that was never in force") {
		t.Fatalf("%q", warned)
	}
	if data, err := os.ReadFile(own); err != nil || string(data) != "of somebody else" {
		t.Fatal(err)
	}
	if err := os.Remove(own); err != nil {
		t.Fatal(err)
	}
	if err := refresh("carol", "dora"); err != nil {
		t.Fatal(err)
	}
	want := []string{"share-1-alice.s1.share.age", "share-1-carol.s2.share.age", "share-2-bob.s1.share.age", "share-2-dora.s2.share.age"}
	if files := shareFiles(t, c); !slices.Equal(files, want) {
		t.Fatalf("%q", files)
	}
}
