package pkgen_test

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

// Init with shares, cut at every file operation and run again, makes one whole PKG.
func TestInitSharesCutAnywhere(t *testing.T) {
	x := newCeremony(t, 2, "alice", "bob", "carol")
	for name, mode := range modes() {
		t.Run(name, func(t *testing.T) {
			for cut := 1; ; cut += keyfiletest.Step {
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
			for cut := 1; ; cut += keyfiletest.Step {
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
