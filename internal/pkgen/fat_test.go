package pkgen_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

// sticks are what may be worse about a FAT stick than about its rules.
func sticks() map[string]keyfiletest.FATOptions {
	return map[string]keyfiletest.FATOptions{
		"the kernel's":              {},
		"removes first":             {RemovesFirst: true},
		"does not sync directories": {NoDirSync: true},
	}
}

// again gives the fixture a stick with its first run on it, and says what the
// second shall issue: all of that again, the CLM's next generation, and names
// that differ little.
func (f fixture) again() fixture {
	g := f
	g.requests = append([]pkgen.Request{}, f.requests...)
	for _, name := range []string{"plc-1:a.b", "plc-1:a-b"} {
		g.requests = append(g.requests, device(name, f.party))
	}
	return g
}

// whole demands of a medium, in whatever state a run has left it, that each
// bundle that its manifest lists is there and opens. Without a manifest nothing
// is listed.
func (f fixture) whole(t *testing.T) {
	t.Helper()
	ledger, err := pkgen.VerifyDir(f.config.Dir)
	if err != nil {
		return // an append was cut: the next run mends it
	}
	data, err := os.ReadFile(filepath.Join(f.options.Medium, bundle.ManifestName))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	m, err := bundle.ParseManifest(data, ledger.Params)
	if err != nil {
		t.Fatalf("the manifest: %v", err)
	}
	for _, row := range m.Rows {
		if row.Role == ibc.RoleDevice {
			open(t, f.options.Medium, row, f.party)
		}
	}
}

// Issue to a FAT stick, cut at every operation and run again, loses nothing:
// neither of this run nor of those before it, whatever the driver is like.
func TestIssueToFATCutAnywhere(t *testing.T) {
	f := newFixture(t, 1)
	if err := f.run(keyfiletest.New(0, keyfiletest.Kill)); err != nil {
		t.Fatal(err)
	}
	f = f.again()
	for kind, o := range sticks() {
		for name, mode := range modes() {
			if mode == keyfiletest.Kill && o.NoDirSync {
				continue // no power is lost
			}
			t.Run(kind+", "+name, func(t *testing.T) {
				for cut := 1; ; cut += keyfiletest.Step {
					g := f.copy(t, t.TempDir())
					layer := keyfiletest.New(cut, mode)
					err := g.run(keyfiletest.NewFAT(layer, g.options.Medium, o))
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
					if !o.RemovesFirst { // a bundle that is being replaced is gone for a moment
						g.whole(t)
					}
					if err := g.run(keyfiletest.NewFAT(keyfiletest.New(0, mode), g.options.Medium, o)); err != nil {
						t.Fatalf("cut at %d, run again: %v", cut, err)
					}
					g.check(t)
				}
			})
		}
	}
}

// A run that finds the manifest gone is cut too, wherever it may be: the third
// one still has what the first one's manifest listed.
func TestIssueToFATCutTwice(t *testing.T) {
	f := newFixture(t, 1)
	o := keyfiletest.FATOptions{RemovesFirst: true}
	gone := 0
	for cut := 1; gone == 0; cut++ {
		g := f.copy(t, t.TempDir())
		layer := keyfiletest.New(cut, keyfiletest.Kill)
		if err := g.run(keyfiletest.NewFAT(layer, g.options.Medium, o)); !layer.Cut() {
			t.Fatalf("no cut takes the manifest away: %v", err)
		}
		if _, err := os.Stat(filepath.Join(g.options.Medium, bundle.ManifestName)); err == nil {
			continue
		}
		for gone = 1; ; gone++ {
			h := g.copy(t, t.TempDir())
			layer := keyfiletest.New(gone, keyfiletest.PowerLoss)
			err := h.run(keyfiletest.NewFAT(layer, h.options.Medium, o))
			if !layer.Cut() {
				if err != nil || gone < 20 {
					t.Fatalf("uncut after %d operations: %v", gone-1, err)
				}
				break
			}
			if err := h.run(keyfiletest.NewFAT(keyfiletest.New(0, keyfiletest.Kill), h.options.Medium, o)); err != nil {
				t.Fatalf("cut at %d and %d: %v", cut, gone, err)
			}
			h.check(t)
		}
	}
}

// Every operation on the stick fails once, with the errors that worn and full
// ones give: the run says so, leaves a medium that is whole, and the next one
// completes it.
func TestIssueToFATThatFails(t *testing.T) {
	f := newFixture(t, 1)
	if err := f.run(keyfiletest.New(0, keyfiletest.Kill)); err != nil {
		t.Fatal(err)
	}
	f = f.again()
	for _, fault := range []error{syscall.ENOSPC, syscall.EIO} {
		t.Run(fault.Error(), func(t *testing.T) {
			for at := 1; ; at += keyfiletest.Step {
				g := f.copy(t, t.TempDir())
				layer := keyfiletest.NewFAT(keyfiletest.New(0, keyfiletest.Kill), g.options.Medium, keyfiletest.FATOptions{FailAt: at, Fail: fault})
				err := g.run(layer)
				if !layer.Failed() {
					if err != nil || at < 15 {
						t.Fatalf("unfailed after %d operations: %v", at-1, err)
					}
					return
				}
				if !errors.Is(err, fault) {
					t.Fatalf("operation %d: error %v", at, err)
				}
				g.whole(t)
				if err := g.run(layer); err != nil {
					t.Fatalf("operation %d, run again: %v", at, err)
				}
				g.check(t)
			}
		})
	}
}

// A full stick is told, keeps what it has, and what did not fit goes to another.
func TestIssueToFullFAT(t *testing.T) {
	f := newFixture(t, 6)
	full := keyfiletest.NewFAT(keyfiletest.New(0, keyfiletest.Kill), f.options.Medium, keyfiletest.FATOptions{Capacity: 8 * 4096})
	if err := f.run(full); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("error %v, want ENOSPC", err)
	}
	f.whole(t)
	f.options.Medium = filepath.Join(t.TempDir(), "other")
	clm := newParty(t)
	issued := []pkgen.Request{{Role: ibc.RoleCLM, Name: "clm-1", Generation: 2, Recipient: &clm.to}}
	if _, err := issue(f.config, pkgen.IssueOptions{Medium: f.options.Medium}, issued...); err != nil {
		t.Fatal(err)
	}
	if err := f.run(keyfiletest.New(0, keyfiletest.Kill)); err != nil {
		t.Fatal(err)
	}
	_, m := verify(t, f.config, f.options.Medium)
	if len(m.Rows) != 1+len(f.requests) {
		t.Fatalf("%d rows on the other stick", len(m.Rows))
	}
}

// The longest names that can be issued fit, with what a write in progress adds.
func TestLongestNamesFitFAT(t *testing.T) {
	f := newFixture(t, 0)
	longest := "a" + strings.Repeat(":", 63)
	r := device(longest, f.party)
	r.Generation = 1<<31 - 1
	f.requests = []pkgen.Request{r}
	if err := f.run(keyfiletest.NewFAT(keyfiletest.New(0, keyfiletest.Kill), f.options.Medium, keyfiletest.FATOptions{})); err != nil {
		t.Fatal(err)
	}
	if _, m := verify(t, f.config, f.options.Medium); m.Rows[1].Name != longest {
		t.Errorf("issued %v", m.Rows)
	}
}

// A manifest that is lost for good is told by the next issue, and made again by
// issuing what it listed.
func TestLostManifestIsTold(t *testing.T) {
	f := newFixture(t, 1)
	if err := f.run(keyfiletest.New(0, keyfiletest.Kill)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(f.options.Medium, bundle.ManifestName)); err != nil {
		t.Fatal(err)
	}
	var told []string
	f.config.Warn = func(text string) { told = append(told, text) }
	if err := f.run(keyfiletest.New(0, keyfiletest.Kill)); err != nil {
		t.Fatal(err)
	}
	if len(told) != 1 || !strings.Contains(told[0], "clm-clm-1.e1.g1.bundle.age") || !strings.Contains(told[0], "issue its name again") {
		t.Errorf("told: %q", told)
	}
}

// A statement of anchors is written to a FAT stick as bundles are.
func TestAnchorToFATCutAnywhere(t *testing.T) {
	f := newFixture(t, 1)
	anchors := [][]byte{root(t, "fat")}
	state := func(c pkgen.Config, medium string) error {
		p, err := pkgen.Open(c, passphrase)
		if err != nil {
			return err
		}
		_, err = p.Anchor(pkgen.AnchorRequest{Medium: medium, Pattern: "*", Anchors: anchors})
		return errors.Join(err, p.Close())
	}
	for name, mode := range modes() {
		t.Run(name, func(t *testing.T) {
			for cut := 1; ; cut += keyfiletest.Step {
				g := f.copy(t, t.TempDir())
				layer := keyfiletest.New(cut, mode)
				c := g.config
				c.Files = keyfile.On(keyfiletest.NewFAT(layer, g.options.Medium, keyfiletest.FATOptions{RemovesFirst: true}))
				err := state(c, g.options.Medium)
				if !layer.Cut() {
					if err != nil || cut < 8 {
						t.Fatalf("uncut after %d operations: %v", cut-1, err)
					}
					return
				}
				if err := state(g.config, g.options.Medium); err != nil {
					t.Fatalf("cut at %d, run again: %v", cut, err)
				}
				if _, err := os.Stat(filepath.Join(g.options.Medium, bundle.AnchorFileName(1))); err != nil {
					t.Fatal(fmt.Errorf("cut at %d: %w", cut, err))
				}
				verify(t, g.config, g.options.Medium)
			}
		})
	}
}
