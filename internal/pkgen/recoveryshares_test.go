package pkgen_test

import (
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

// openRecovery opens the recovery key of a PKG's directory with some of its shares.
func (x ceremony) openRecovery(c pkgen.Config, indices ...int) (*pkgen.RecoveryKey, error) {
	path := c.RecoveryPath(pkgen.InitOptions{})
	s, err := pkgen.ReadRecoverySharing(path + pkgen.RecoverySharingSuffix)
	if err != nil {
		return nil, err
	}
	files := c.RecoveryShareFiles(s, "")
	var shares []*custody.RecoveryShare
	for _, i := range indices {
		sealed, err := os.ReadFile(files[i-1])
		if err != nil {
			return nil, err
		}
		share, err := custody.OpenRecovery(sealed, x.party.opener, s)
		if err != nil {
			return nil, err
		}
		shares = append(shares, share)
	}
	return pkgen.OpenRecoveryShares(path, shares)
}

// holdsRecovery demands that the shares of the recovery key are there, all of
// them and no others, and that enough of them open it.
func (x ceremony) holdsRecovery(t testing.TB, c pkgen.Config, cut int) {
	t.Helper()
	ledger, err := pkgen.VerifyDir(c.Dir)
	if err != nil {
		t.Fatalf("cut at %d, verified: %v", cut, err)
	}
	for _, indices := range [][]int{{3, 1}, {2, 3}} {
		if k, err := x.openRecovery(c, indices...); err != nil || k.Hash != ledger.Recovery() {
			t.Fatalf("cut at %d, shares %v: %v", cut, indices, err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(c.Dir, pkgen.RecoverySharesDir))
	if err != nil || len(entries) != 3 {
		t.Fatalf("cut at %d: %d files, %v", cut, len(entries), err)
	}
	if _, err := os.Lstat(filepath.Join(c.Dir, "recovery-shares.pending.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("cut at %d: the note is there still: %v", cut, err)
	}
	noTemps(t, c.Dir)
}

// Init with shares of the recovery key, and of the master secret or not, cut at
// every file operation and run again, makes one whole PKG.
func TestInitRecoverySharesCutAnywhere(t *testing.T) {
	x := newCeremony(t, 2, "alice", "bob", "carol")
	for name, mode := range modes() {
		t.Run(name, func(t *testing.T) {
			for cut := 1; ; cut += keyfiletest.Step {
				c := config(filepath.Join(t.TempDir(), "pkg"))
				c.Random = rand.Reader
				options, complete := pkgen.InitOptions{RecoveryShares: &x.options}, pkgen.MasterFile
				if cut%2 == 0 {
					options.Shares, complete = &x.options, pkgen.SharesFile
				}
				layer := keyfiletest.New(cut, mode)
				c.Files = keyfile.On(layer)
				_, err := pkgen.Init(c, passphrase, options)
				if !layer.Cut() {
					if err != nil || cut < 50 {
						t.Fatalf("uncut after %d operations: %v", cut-1, err)
					}
					x.holdsRecovery(t, c, 0)
					return
				}
				if err == nil {
					t.Fatalf("cut at %d: no error", cut)
				}
				c.Files = config(c.Dir).Files
				_, err = os.Stat(filepath.Join(c.Dir, complete))
				made := err == nil
				_, err = pkgen.Init(c, passphrase, options)
				if made != errors.Is(err, pkgen.ErrExists) || !made && err != nil {
					t.Fatalf("cut at %d (complete: %t), then: %v", cut, made, err)
				}
				if options.Shares != nil {
					x.holds(t, c, 3, 1)
				} else {
					p, err := pkgen.Open(c, passphrase)
					if err != nil {
						t.Fatalf("cut at %d: %v", cut, err)
					}
					if err := p.Close(); err != nil {
						t.Fatal(err)
					}
				}
				x.holdsRecovery(t, c, cut)
			}
		})
	}
}

// A run that was cut leaves nothing of its shares behind in the PKG that a later
// one makes without any.
func TestInitForgetsRecoverySharesOfCutRun(t *testing.T) {
	x := newCeremony(t, 2, "alice", "bob", "carol")
	left := 0
	for cut := 1; ; cut += keyfiletest.Step {
		c := config(filepath.Join(t.TempDir(), "pkg"))
		c.Random = rand.Reader
		layer := keyfiletest.New(cut, keyfiletest.Kill)
		c.Files = keyfile.On(layer)
		_, err := pkgen.Init(c, passphrase, pkgen.InitOptions{RecoveryShares: &x.options})
		dir := filepath.Join(c.Dir, pkgen.RecoverySharesDir)
		entries, _ := os.ReadDir(dir)
		left = max(left, len(entries))
		c.Files = config(c.Dir).Files
		if _, again := pkgen.Init(c, passphrase, pkgen.InitOptions{}); errors.Is(again, pkgen.ErrExists) {
			break
		} else if err == nil || again != nil {
			t.Fatalf("cut at %d: %v, then %v", cut, err, again)
		}
		if _, err := pkgen.OpenRecovery(c.RecoveryPath(pkgen.InitOptions{}), passphrase); err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if entries, err := os.ReadDir(dir); len(entries) > 0 {
			t.Fatalf("cut at %d: %d shares are left, %v", cut, len(entries), err)
		}
		if _, err := os.Lstat(c.RecoveryPath(pkgen.InitOptions{}) + pkgen.RecoverySharingSuffix); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("cut at %d: a description is left: %v", cut, err)
		}
	}
	if left < 3 {
		t.Fatalf("%d shares at most: nothing was tested", left)
	}
}

// The shares of one recovery key do not open another, neither passphrase opens one
// that is in shares, and the one description is not taken for the other.
func TestRecoverySharesOpenTheirKeyAlone(t *testing.T) {
	x := newCeremony(t, 2, "alice", "bob", "carol")
	made := func() pkgen.Config {
		c := config(filepath.Join(t.TempDir(), "pkg"))
		c.Random = rand.Reader
		if _, err := pkgen.Init(c, passphrase, pkgen.InitOptions{RecoveryShares: &x.options}); err != nil {
			t.Fatal(err)
		}
		return c
	}
	a, b := made(), made()
	path := a.RecoveryPath(pkgen.InitOptions{})
	if _, err := pkgen.OpenRecovery(path, passphrase); !errors.Is(err, pkgen.ErrPassphrase) {
		t.Error(err)
	}
	if _, err := x.openRecovery(a, 1); !errors.Is(err, custody.ErrTooFew) {
		t.Error(err)
	}
	other, err := os.ReadFile(b.RecoveryPath(pkgen.InitOptions{}))
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, other, keyfile.SecretPerm); err != nil {
		t.Fatal(err)
	}
	if _, err := x.openRecovery(a, 1, 2); !errors.Is(err, pkgen.ErrRecovery) {
		t.Error(err)
	}
	if err := os.WriteFile(path, own, keyfile.SecretPerm); err != nil {
		t.Fatal(err)
	}
	if _, err := x.openRecovery(a, 1, 2); err != nil {
		t.Error(err)
	}
	description, err := os.ReadFile(b.RecoveryPath(pkgen.InitOptions{}) + pkgen.RecoverySharingSuffix)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+pkgen.RecoverySharingSuffix, description, keyfile.PublicPerm); err != nil {
		t.Fatal(err)
	}
	if _, err := pkgen.VerifyDir(a.Dir); !errors.Is(err, pkgen.ErrForeign) {
		t.Error(err)
	}
	if _, err := x.openRecovery(a, 1, 2); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, custody.ErrCeremony) {
		t.Error(err)
	}
}
