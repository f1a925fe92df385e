package pkgen_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

// root is the self-signed certificate of a CA.
func root(t testing.TB, name string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// anchor opens the PKG, makes a statement and closes it.
func anchor(c pkgen.Config, r pkgen.AnchorRequest) (*pkgen.Stated, error) {
	p, err := pkgen.Open(c, passphrase)
	if err != nil {
		return nil, err
	}
	s, err := p.Anchor(r)
	return s, errors.Join(err, p.Close())
}

func mustAnchor(t testing.TB, c pkgen.Config, r pkgen.AnchorRequest) *pkgen.Stated {
	t.Helper()
	s, err := anchor(c, r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wantStatements verifies the directory and the statements of a medium, and
// demands one entry of the ledger for each of these serial numbers, 1 and up.
func wantStatements(t testing.TB, c pkgen.Config, medium string, n int) {
	t.Helper()
	ledger, err := pkgen.VerifyDir(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if last, _ := ledger.LatestAnchor(); last.Serial != uint64(n) || len(ledger.Entries) != 1+n {
		t.Fatalf("the ledger has %d entries, the last statement is %d; want %d statements", len(ledger.Entries), last.Serial, n)
	}
	for serial := range uint64(n) {
		set, err := pkgen.VerifyAnchors(filepath.Join(medium, bundle.AnchorFileName(serial+1)), ledger.Params, ledger)
		if err != nil || set.Serial != serial+1 {
			t.Fatalf("statement %d: %v, %v", serial+1, set, err)
		}
	}
	noTemps(t, c.Dir)
	noTemps(t, medium)
}

func TestAnchorSerials(t *testing.T) {
	c := initPKG(t)
	medium := filepath.Join(t.TempDir(), "usb")
	old, next := root(t, "old"), root(t, "new")
	one := pkgen.AnchorRequest{Medium: medium, Pattern: "*", Anchors: [][]byte{old}}
	both := pkgen.AnchorRequest{Medium: medium, Pattern: "*", Anchors: [][]byte{old, next}}
	site := pkgen.AnchorRequest{Medium: medium, Pattern: "*.bilbao", Anchors: [][]byte{old}}
	for i, tc := range []struct {
		request pkgen.AnchorRequest
		serial  uint64
	}{{one, 1}, {one, 1}, {both, 2}, {both, 2}, {site, 3}, {both, 4}, {one, 5}} {
		if got := mustAnchor(t, c, tc.request); got.Set.Serial != tc.serial || got.Index != tc.serial+1 || got.Ledger.Index != got.Index {
			t.Fatalf("run %d: serial %d, entry %d of %d; want serial %d", i, got.Set.Serial, got.Index, got.Ledger.Index, tc.serial)
		}
	}
	wantStatements(t, c, medium, 5)

	// Another medium gets the latest, under the same serial number.
	one.Medium = filepath.Join(t.TempDir(), "usb")
	if got := mustAnchor(t, c, one); got.Set.Serial != 5 {
		t.Errorf("the same statement again has serial %d", got.Set.Serial)
	}
	for what, r := range map[string]pkgen.AnchorRequest{
		"no anchors": {Medium: medium, Pattern: "*"},
		"no pattern": {Medium: medium, Anchors: [][]byte{old}},
	} {
		if _, err := anchor(c, r); !errors.Is(err, pkgen.ErrRequest) {
			t.Errorf("%s: error %v, want ErrRequest", what, err)
		}
	}
	wantStatements(t, c, medium, 5)
}

// A file that is not the statement is not written over, and costs no serial
// number.
func TestAnchorLeavesOthersAlone(t *testing.T) {
	c, other := initPKG(t), config(filepath.Join(t.TempDir(), "pkg"))
	other.Random = rand.Reader
	if _, err := pkgen.Init(other, passphrase, pkgen.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	medium := filepath.Join(t.TempDir(), "usb")
	r := pkgen.AnchorRequest{Medium: medium, Pattern: "*", Anchors: [][]byte{root(t, "old")}}
	theirs := mustAnchor(t, other, r)
	before, err := os.ReadFile(theirs.File)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := anchor(c, r); !errors.Is(err, pkgen.ErrForeign) {
		t.Errorf("error %v, want ErrForeign", err)
	}
	if after, err := os.ReadFile(theirs.File); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the other PKG's statement was touched (%v)", err)
	}
	r.Medium = filepath.Join(t.TempDir(), "usb")
	mustAnchor(t, c, r)
	wantStatements(t, c, r.Medium, 1)
	ledger, err := pkgen.ReadPublic(other.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pkgen.VerifyAnchors(filepath.Join(r.Medium, bundle.AnchorFileName(1)), ledger.Params, ledger); !errors.Is(err, bundle.ErrParams) {
		t.Errorf("under the other PKG: error %v, want ErrParams", err)
	}
}

// Anchor, cut at every file operation and run again, leaves one entry and its
// statement.
func TestAnchorCutAnywhere(t *testing.T) {
	base := initPKG(t)
	anchors := [][]byte{root(t, "old"), root(t, "new")}
	for name, mode := range modes() {
		t.Run(name, func(t *testing.T) {
			for cut := 1; ; cut += keyfiletest.Step {
				dir := t.TempDir()
				c := base
				c.Dir = filepath.Join(dir, "pkg")
				copyDir(t, base.Dir, c.Dir)
				r := pkgen.AnchorRequest{Medium: filepath.Join(dir, "usb"), Pattern: "*", Anchors: anchors}
				layer := keyfiletest.New(cut, mode)
				c.Files = keyfile.On(layer)
				_, err := anchor(c, r)
				if layer.Cut() != errors.Is(err, keyfiletest.ErrCut) || !layer.Cut() && err != nil {
					t.Fatalf("cut at %d: error %v", cut, err)
				}
				c.Files = base.Files
				mustAnchor(t, c, r)
				wantStatements(t, c, r.Medium, 1)
				if !layer.Cut() {
					if cut < 8 {
						t.Fatalf("uncut after %d operations", cut-1)
					}
					return
				}
			}
		})
	}
}
