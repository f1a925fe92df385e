package pkgen_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

func modes() map[string]keyfiletest.Mode {
	return map[string]keyfiletest.Mode{"killed": keyfiletest.Kill, "power lost": keyfiletest.PowerLoss, "scattered": keyfiletest.Scatter}
}

// Init, cut at every file operation and run again, makes one whole PKG.
func TestInitCutAnywhere(t *testing.T) {
	for name, mode := range modes() {
		t.Run(name, func(t *testing.T) {
			for cut := 1; ; cut += keyfiletest.Step {
				c := config(filepath.Join(t.TempDir(), "pkg"))
				layer := keyfiletest.New(cut, mode)
				c.Files = keyfile.On(layer)
				_, err := pkgen.Init(c, passphrase, pkgen.InitOptions{})
				if !layer.Cut() {
					if err != nil || cut < 20 {
						t.Fatalf("uncut after %d operations: %v", cut-1, err)
					}
					return
				}
				if err == nil {
					t.Fatalf("cut at %d: no error", cut)
				}
				c.Files = config(c.Dir).Files
				_, err = os.Stat(filepath.Join(c.Dir, pkgen.MasterFile))
				complete := err == nil
				_, err = pkgen.Init(c, passphrase, pkgen.InitOptions{})
				if complete != errors.Is(err, pkgen.ErrExists) || !complete && err != nil {
					t.Fatalf("cut at %d (complete: %t), then: %v", cut, complete, err)
				}
				p, err := pkgen.Open(c, passphrase)
				if err != nil {
					t.Fatalf("cut at %d, opened: %v", cut, err)
				}
				if err := p.Close(); err != nil {
					t.Fatal(err)
				}
				if _, err := pkgen.VerifyDir(c.Dir); err != nil {
					t.Fatalf("cut at %d, verified: %v", cut, err)
				}
				noTemps(t, c.Dir)
			}
		})
	}
}

// fixture is a PKG with one CLM on a medium, and what shall be issued next.
type fixture struct {
	config   pkgen.Config
	options  pkgen.IssueOptions
	party    party
	requests []pkgen.Request
}

func newFixture(t testing.TB, devices int) fixture {
	c := initPKG(t)
	f := fixture{config: c, options: withCLM(t, c), party: newParty(t)}
	for _, name := range manyNames(devices) {
		r := device(name, f.party)
		r.Address = "10.0.0.1:5684"
		f.requests = append(f.requests, r)
	}
	return f
}

// copy returns the fixture in directories of its own.
func (f fixture) copy(t testing.TB, base string) fixture {
	f2 := f
	f2.config.Dir = filepath.Join(base, "pkg")
	f2.options.Medium = filepath.Join(base, "usb")
	copyDir(t, f.config.Dir, f2.config.Dir)
	copyDir(t, f.options.Medium, f2.options.Medium)
	return f2
}

// run issues with a layer.
func (f fixture) run(layer keyfile.Layer) error {
	c := f.config
	c.Files = keyfile.On(layer)
	_, err := issue(c, f.options, f.requests...)
	return err
}

// check demands that everything was issued exactly once and can be opened.
func (f fixture) check(t testing.TB) {
	t.Helper()
	ledger, m := verify(t, f.config, f.options.Medium)
	if len(ledger.Entries) != 2+len(f.requests) || len(m.Rows) != 1+len(f.requests) {
		t.Fatalf("%d entries and %d rows for %d requests", len(ledger.Entries), len(m.Rows), len(f.requests))
	}
	for i, row := range m.Rows[1:] {
		if row.Name != f.requests[i].Name || row.LedgerIndex != uint64(3+i) {
			t.Fatalf("row %d is %s, entry %d", i+1, row.Name, row.LedgerIndex)
		}
		if i%5 != 0 {
			continue // opening costs two pairings each
		}
		b := open(t, f.options.Medium, row, f.party)
		if err := b.HeldTo(ledger.Params.ID()); err != nil {
			t.Fatal(err)
		}
	}
}

// Issue, cut at every file operation and run again, leaves ledger, manifest
// and bundles as one uncut run does: every identity recorded once.
func TestIssueCutAnywhere(t *testing.T) {
	f := newFixture(t, 3)
	for name, mode := range modes() {
		t.Run(name, func(t *testing.T) {
			for cut := 1; ; cut += keyfiletest.Step {
				g := f.copy(t, t.TempDir())
				layer := keyfiletest.New(cut, mode)
				err := g.run(layer)
				if !layer.Cut() {
					if err != nil || cut < 20 {
						t.Fatalf("uncut after %d operations: %v", cut-1, err)
					}
					g.check(t)
					return
				}
				if !errors.Is(err, keyfiletest.ErrCut) {
					t.Fatalf("cut at %d: error %v", cut, err)
				}
				if err := g.run(keyfiletest.New(0, keyfiletest.Kill)); err != nil {
					t.Fatalf("cut at %d, run again: %v", cut, err)
				}
				g.check(t)
			}
		})
	}
}

// Whatever series of cuts a run of several chunks suffers, the run that is not
// cut completes it. The series are drawn from seeds, fewer than rapid would
// draw: each costs a hundred key extractions.
func TestIssueCutAgainAndAgain(t *testing.T) {
	f := newFixture(t, 34)
	for seed := range uint64(8) {
		random := rand.New(rand.NewPCG(seed, 0))
		g := f.copy(t, t.TempDir())
		for range 1 + random.IntN(3) {
			cut, mode := 1+random.IntN(170), keyfiletest.Mode(random.IntN(3))
			layer := keyfiletest.New(cut, mode)
			if err := g.run(layer); layer.Cut() != errors.Is(err, keyfiletest.ErrCut) || !layer.Cut() && err != nil {
				t.Fatalf("seed %d, cut at %d, mode %d: error %v", seed, cut, mode, err)
			}
		}
		if err := g.run(keyfiletest.New(0, keyfiletest.Kill)); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		g.check(t)
	}
}
