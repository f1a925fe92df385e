package pkgen_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

// A batch that is combined, cut at every file operation and combined again,
// leaves ledger, medium and directory as an uncut run does, and nothing of what
// the batch was kept by.
func TestCombineCutAnywhere(t *testing.T) {
	c := newCircle(t, 2)
	medium := c.withCLM(t)
	dev := newParty(t)
	task := issueTask(medium, []string{"clm-1"}, device("plc-1", dev), pkgen.Request{Role: "dev", Name: "plc-2"})
	task.Issue.Options.PINs = true
	file := c.batch(t, task)
	x := []pkgen.SealedContribution{c.contribute(t, file, 1), c.contribute(t, file, 2)}
	for name, mode := range modes() {
		t.Run(name, func(t *testing.T) {
			for cut := 1; ; cut += keyfiletest.Step {
				base := t.TempDir()
				there := *c
				there.config.Dir = filepath.Join(base, "pkg")
				usb := filepath.Join(base, "usb")
				copyDir(t, c.config.Dir, there.config.Dir)
				copyDir(t, medium, usb)
				layer := keyfiletest.New(cut, mode)
				there.config.Files = keyfile.On(layer)
				_, err := there.combine(file, usb, x...)
				if layer.Cut() != errors.Is(err, keyfiletest.ErrCut) || !layer.Cut() && (err != nil || cut < 25) {
					t.Fatalf("cut at %d: %v", cut, err)
				}
				there.config.Files = c.config.Files
				done, err := there.combine(file, usb, slices.Clone(x)...)
				if err != nil || !layer.Cut() && !done.Already {
					t.Fatalf("cut at %d, combined again: %v %v", cut, done, err)
				}
				ledger, m := verify(t, there.config, usb)
				if len(ledger.Entries) != 4 || len(m.Rows) != 3 || m.Rows[1].LedgerIndex != 3 {
					t.Fatalf("cut at %d: %d entries and %d rows", cut, len(ledger.Entries), len(m.Rows))
				}
				if cut%5 == 0 {
					open(t, usb, m.Rows[1], dev)
				}
				if left, err := os.ReadDir(filepath.Join(there.config.Dir, pkgen.BatchesDir)); err != nil || len(left) > 0 {
					t.Fatalf("cut at %d: left of the batch: %v %v", cut, left, err)
				}
				if !layer.Cut() {
					return
				}
			}
		})
	}
}

// A batch whose making was cut is made again; what the first run left of it is
// wiped when the second one is combined.
func TestMakeBatchCutAnywhere(t *testing.T) {
	c := newCircle(t, 2)
	clm := newParty(t)
	medium := filepath.Join(t.TempDir(), "usb")
	task := issueTask(medium, nil, pkgen.Request{Role: "clm", Name: "clm-1", Recipient: &clm.to})
	files := c.config.Files
	var whole bool
	for cut := 1; !whole; cut++ {
		layer := keyfiletest.New(cut, keyfiletest.Scatter)
		c.config.Files = keyfile.On(layer)
		_, _, err := pkgen.MakeBatch(t.Context(), c.config, task, nil)
		if whole = !layer.Cut(); whole != (err == nil) {
			t.Fatalf("cut at %d: %v", cut, err)
		}
	}
	c.config.Files = files
	file := c.batch(t, task)
	if _, err := c.combine(file, medium, c.contribute(t, file, 1), c.contribute(t, file, 2)); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Join(c.config.Dir, pkgen.BatchesDir)); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

// What a batch is kept by is no secret of the fleet, and still nobody else reads it.
func TestTaskIsTheOwnersAlone(t *testing.T) {
	c := newCircle(t, 2)
	clm := newParty(t)
	c.batch(t, issueTask(t.TempDir(), nil, pkgen.Request{Role: "clm", Name: "clm-1", Recipient: &clm.to}))
	found, err := filepath.Glob(filepath.Join(c.config.Dir, pkgen.BatchesDir, "*"))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	info, err := os.Stat(found[0])
	if err != nil || info.Mode().Perm() != keyfile.SecretPerm {
		t.Errorf("%v %v", info.Mode(), err)
	}
	data, err := os.ReadFile(found[0])
	if err != nil || !bytes.Contains(data, []byte("AGE-SECRET-KEY-PQ-1")) {
		t.Errorf("not a hybrid key: %v", err)
	}
}
