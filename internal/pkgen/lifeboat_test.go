package pkgen_test

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
	"github.com/edgeclm/edgeclm/internal/lifeboat"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

// The power fails at each operation while a lifeboat is made. Under its number
// the recovery key never says two things, and the next run completes it; the
// statement that a run has left anywhere is that of the record.
func TestLifeboatCrash(t *testing.T) {
	for _, mode := range []keyfiletest.Mode{keyfiletest.Kill, keyfiletest.PowerLoss} {
		for cut := 1; ; cut += keyfiletest.Step {
			old, next := initOther(t), initPKG(t)
			recovery := filepath.Join(old.Dir, pkgen.RecoveryFile)
			medium := filepath.Join(t.TempDir(), "usb")
			layer := keyfiletest.New(cut, mode)
			c := next
			c.Files = keyfile.On(layer)
			first, _ := launchWith(c, recovery, 0, medium)
			again, err := launchWith(next, recovery, 0, medium)
			if err != nil || again.Statement.Serial != 1 {
				t.Fatalf("cut %d: %+v, %v", cut, again, err)
			}
			for _, path := range []string{again.File, filepath.Join(next.Dir, lifeboat.FileName(1))} {
				if l, err := pkgen.VerifyLifeboat(path, readPublic(t, next)); err != nil || l.Statement.Serial != 1 || l.Index != 2 {
					t.Fatalf("cut %d: %s: %+v, %v", cut, path, l, err)
				}
			}
			if _, err := pkgen.VerifyLifeboat(again.File, readPublic(t, old)); err != nil {
				t.Fatal(err)
			}
			if first != nil && !layer.Cut() {
				break
			}
		}
	}
}

// The fleets of two PKGs come to a third: the second lifeboat does not take the
// place of the first.
func TestLifeboatsOfTwoFleets(t *testing.T) {
	one, other, next := initOther(t), initOther(t), initPKG(t)
	medium := filepath.Join(t.TempDir(), "usb")
	key := func(c pkgen.Config) string { return filepath.Join(c.Dir, pkgen.RecoveryFile) }
	first, err := launchWith(next, key(one), 0, medium)
	if err != nil || first.Statement.Serial != 1 {
		t.Fatalf("%+v, %v", first, err)
	}
	if _, err := launchWith(next, key(other), 1, medium); !errors.Is(err, pkgen.ErrRequest) {
		t.Errorf("the number of the first fleet's: %v", err)
	}
	second, err := launchWith(next, key(other), 0, medium)
	if err != nil || second.Statement.Serial != 2 || second.Index != first.Index+1 {
		t.Fatalf("%+v, %v", second, err)
	}
	for _, l := range []*pkgen.Launched{first, second} {
		if _, err := pkgen.VerifyLifeboat(l.File, readPublic(t, next)); err != nil {
			t.Error(err)
		}
	}
}

// initOther makes a PKG with other secrets than initPKG.
func initOther(t testing.TB) pkgen.Config {
	t.Helper()
	c := config(filepath.Join(t.TempDir(), "old"))
	c.Random = rand.Reader
	if _, err := pkgen.Init(c, passphrase, pkgen.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	return c
}

func readPublic(t testing.TB, c pkgen.Config) *pkgen.Ledger {
	t.Helper()
	l, err := pkgen.ReadPublic(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// launchWith opens both and makes the lifeboat.
func launchWith(c pkgen.Config, recovery string, serial uint32, medium string) (*pkgen.Launched, error) {
	key, err := pkgen.OpenRecovery(recovery, passphrase)
	if err != nil {
		return nil, err
	}
	p, err := pkgen.Open(c, passphrase)
	if err != nil {
		return nil, err
	}
	l, err := p.Lifeboat(pkgen.LifeboatRequest{Key: key, Serial: serial, Medium: medium})
	return l, errors.Join(err, p.Close())
}

// TestAttackFlippedBitInLifeboatFiles: a bit of the statement, of the recovery
// key or of its record is another one. Nothing that was changed is used.
func TestAttackFlippedBitInLifeboatFiles(t *testing.T) {
	old, next := initOther(t), initPKG(t)
	recovery := filepath.Join(old.Dir, pkgen.RecoveryFile)
	medium := filepath.Join(t.TempDir(), "usb")
	l, err := launchWith(next, recovery, 0, medium)
	if err != nil {
		t.Fatal(err)
	}
	ledger := readPublic(t, next)
	flip := func(path string, step int, check func(at int)) {
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(good); at += step {
			bad := append([]byte(nil), good...)
			bad[at] ^= 0x10
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			check(at)
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	flip(l.File, 131, func(at int) {
		if _, err := pkgen.VerifyLifeboat(l.File, ledger); err == nil {
			t.Errorf("the statement with another bit in byte %d is accepted", at)
		}
	})
	flip(recovery, 29, func(at int) {
		if _, err := pkgen.OpenRecovery(recovery, passphrase); err == nil {
			t.Errorf("the recovery key with another bit in byte %d is opened", at)
		}
	})
	// The record is a plain file in its owner's hand: a changed one must not lead
	// to a second statement of the number by itself.
	flip(recovery+pkgen.RecordSuffix, 7, func(at int) {
		if again, err := launchWith(next, recovery, 0, medium); err == nil && again.Statement.Serial == 1 && again.Index != l.Index {
			t.Errorf("byte %d of the record: %+v", at, again)
		}
	})
}
