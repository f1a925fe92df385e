package pkgoffline_test

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/airgap"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/cli/pkgoffline"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
)

const strong = "vintage-copper-lantern-orbit-saddle-thicket-marble-ginger-velvet-anchor\n"

// openAir is a machine that is connected to nothing, and leaves the process of
// the tests as it is.
type openAir struct{}

func (openAir) Facts() (airgap.Facts, error)       { return airgap.Facts{}, nil }
func (openAir) Isolate() (airgap.Isolation, error) { return airgap.Isolation{}, nil }

// plant is a PKG and a medium in a directory of their own.
type plant struct {
	t    testing.TB
	base string
	runs *atomic.Int32 // each draws other secrets
}

func newPlant(t testing.TB) plant {
	p := plant{t, t.TempDir(), new(atomic.Int32)}
	for name, content := range map[string]string{"pass": strong, "pin": strong} {
		if err := os.WriteFile(p.path(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p plant) path(name string) string { return filepath.Join(p.base, name) }

// try runs pkg-offline; words that begin with @ are paths in the plant.
func (p plant) try(layer keyfile.Layer, words ...string) (code int, errors string) {
	args := make([]string, len(words))
	for i, w := range words {
		if rest, ok := strings.CutPrefix(w, "@"); ok {
			w = p.path(rest)
		}
		args[i] = w
	}
	var out, errOut bytes.Buffer
	code = pkgoffline.MainWith(args, clikit.Streams{In: strings.NewReader(""), Out: &out, Err: &errOut, Getenv: func(string) string { return "" }}, pkgoffline.Deps{
		Now:        func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) },
		Random:     rand.NewChaCha8([32]byte{byte(p.runs.Add(1))}),
		AirGap:     openAir{},
		WorkFactor: workFactor,
		Machine:    machine,
		Layer:      layer,
	})
	return code, errOut.String()
}

func (p plant) run(words ...string) {
	p.t.Helper()
	if code, text := p.try(nil, words...); code != 0 {
		p.t.Fatalf("%v: exit code %d: %s", words, code, text)
	}
}

// furnish makes a PKG that has done everything, and a medium.
func (p plant) furnish() {
	p.t.Helper()
	p.run("init", "--dir", "@pkg", "--passphrase-file", "@pass", "--participant", "Ada, officer")
	p.run("issue", "--dir", "@pkg", "--passphrase-file", "@pass", "--out", "@usb", "--role", "clm", "--bundle-passphrase-file", "@pin", "clm-1")
	p.run("issue", "--dir", "@pkg", "--passphrase-file", "@pass", "--out", "@usb", "--clm", "clm-1", "--bundle-passphrase-file", "@pin", "plc-1", "plc-2")
	p.run("new-epoch", "--dir", "@pkg", "--passphrase-file", "@pass")
	p.run("issue", "--dir", "@pkg", "--passphrase-file", "@pass", "--out", "@usb", "--role", "clm", "--bundle-passphrase-file", "@pin", "clm-1")
}

// files returns what lies below the PKG's directory and the medium.
func (p plant) files() []string {
	var all []string
	for _, dir := range []string{"pkg", "usb"} {
		err := filepath.WalkDir(p.path(dir), func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				all = append(all, path)
			}
			return err
		})
		if err != nil {
			p.t.Fatal(err)
		}
	}
	return all
}

// insignificant says of which files verify holds nothing, and why.
func insignificant(path string) bool {
	// A bundle of an earlier epoch or generation, whose row the manifest has
	// replaced: devices refuse it by its age, and its content by its seal.
	return strings.HasSuffix(path, "clm-clm-1.e1.g1.bundle.age")
}

// positions are where a file is changed: its ends, and some places between.
func positions(size int, random *rand.Rand) []int {
	all := []int{0, size - 1}
	for range min(size, 10) {
		all = append(all, random.IntN(size))
	}
	return all
}

// An attacker flips one bit in any file that the tool has written: verify, which
// has no secret, refuses it.
func TestAttackFlippedBitAnywhere(t *testing.T) {
	p := newPlant(t)
	p.furnish()
	verify := []string{"verify", "--dir", "@pkg", "@usb"}
	p.run(verify...)
	random := rand.New(rand.NewPCG(3, 4))
	tried := 0
	for _, path := range p.files() {
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(good) == 0 || insignificant(path) {
			continue
		}
		for _, at := range positions(len(good), random) {
			bad := bytes.Clone(good)
			bad[at] ^= 1 << random.IntN(8)
			overwrite(t, path, bad)
			if code, _ := p.try(nil, verify...); code != clikit.ExitFailed {
				t.Errorf("%s: byte %d of %d is %q instead of %q: exit code %d", path, at, len(good), bad[at], good[at], code)
			}
			tried++
		}
		overwrite(t, path, good)
	}
	if tried < 150 {
		t.Fatalf("only %d bits flipped", tried)
	}
	p.run(verify...)
}

// An attacker cuts any file short, at the end of each line or, of one without
// lines, somewhere.
func TestAttackTruncationAnywhere(t *testing.T) {
	p := newPlant(t)
	p.furnish()
	verify := []string{"verify", "--dir", "@pkg", "@usb"}
	for _, path := range p.files() {
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(good) == 0 || insignificant(path) {
			continue
		}
		cuts := []int{0, len(good) / 2, len(good) - 1}
		if strings.HasSuffix(path, ".jsonl") {
			for at, b := range good[:len(good)-1] {
				if b == '\n' {
					cuts = append(cuts, at+1)
				}
			}
		}
		if filepath.Base(path) == "manifest.json" {
			cuts = slices.DeleteFunc(cuts, func(at int) bool { return at == len(good)-1 }) // JSON without its last line break
		}
		for _, at := range cuts {
			overwrite(t, path, good[:at])
			if code, _ := p.try(nil, verify...); code != clikit.ExitFailed {
				t.Errorf("%s cut at %d of %d: exit code %d", path, at, len(good), code)
			}
		}
		overwrite(t, path, good)
	}
	p.run(verify...)
}

func overwrite(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A run with its transcript, cut at each write and run again: everything holds,
// and the transcript of the cut run is noted by the next.
func TestRunCutAnywhere(t *testing.T) {
	issue := []string{"issue", "--dir", "@pkg", "--passphrase-file", "@pass", "--out", "@usb", "--role", "clm", "--bundle-passphrase-file", "@pin", "clm-1"}
	origin := newPlant(t)
	origin.run("init", "--dir", "@pkg", "--passphrase-file", "@pass")
	for _, mode := range []keyfiletest.Mode{keyfiletest.Kill, keyfiletest.PowerLoss, keyfiletest.Scatter} {
		for cut := 1; ; cut += keyfiletest.Step {
			p := newPlant(t)
			copyTree(t, origin.path("pkg"), p.path("pkg"))
			layer := keyfiletest.New(cut, mode)
			code, text := p.try(layer, issue...)
			if !layer.Cut() {
				if code != 0 || cut < 30 {
					t.Fatalf("uncut after %d operations: exit code %d: %s", cut-1, code, text)
				}
				break
			}
			if code == 0 {
				t.Fatalf("mode %d, cut at %d: exit code 0", mode, cut)
			}
			p.run(issue...)
			p.run("verify", "--dir", "@pkg", "@usb")
		}
	}
}

// A PKG that is being made, cut at some of its writes: made by the next run.
func TestInitCutAnywhere(t *testing.T) {
	makes := []string{"init", "--dir", "@pkg", "--passphrase-file", "@pass"}
	for cut := 1; ; cut += 3 * keyfiletest.Step {
		p := newPlant(t)
		layer := keyfiletest.New(cut, keyfiletest.PowerLoss)
		code, text := p.try(layer, makes...)
		if !layer.Cut() {
			if code != 0 || cut < 30 {
				t.Fatalf("uncut after %d operations: exit code %d: %s", cut-1, code, text)
			}
			return
		}
		if code == 0 {
			t.Fatalf("cut at %d: exit code 0", cut)
		}
		if _, err := os.Stat(p.path("pkg/master.age")); errors.Is(err, fs.ErrNotExist) {
			p.run(makes...)
		} else {
			// It is made: what the transcript lacks, the next run notes.
			p.run("issue", "--dir", "@pkg", "--passphrase-file", "@pass", "--out", "@usb", "--role", "clm", "--bundle-passphrase-file", "@pin", "clm-1")
		}
		p.run("verify", "--dir", "@pkg")
	}
}

func copyTree(t testing.TB, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), data, info.Mode().Perm())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The head of a transcript on paper proves that it is there.
func TestAttackLastTranscriptTakenAway(t *testing.T) {
	p := newPlant(t)
	p.run("init", "--dir", "@pkg", "--passphrase-file", "@pass")
	issue := []string{"issue", "--dir", "@pkg", "--passphrase-file", "@pass", "--out", "@usb", "--role", "clm", "--bundle-passphrase-file", "@pin", "clm-1"}
	p.run(issue...)
	code, text := p.try(nil, issue...)
	_, head, found := strings.Cut(text, "its head: ")
	if code != 0 || !found {
		t.Fatalf("exit code %d, %s", code, text)
	}
	head, _, _ = strings.Cut(head, "\n")
	p.run("verify", "--dir", "@pkg", "--head", head)
	last, err := filepath.Glob(p.path("pkg/transcripts/0003-*"))
	if err != nil || len(last) != 1 {
		t.Fatal(last, err)
	}
	if err := os.Remove(last[0]); err != nil {
		t.Fatal(err)
	}
	p.run("verify", "--dir", "@pkg")
	if code, text := p.try(nil, "verify", "--dir", "@pkg", "--head", head); code != clikit.ExitFailed || !strings.Contains(text, "lost or replaced") {
		t.Fatalf("exit code %d, %s", code, text)
	}
}
