package pkgen_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

// cutLong issues 100 devices and cuts the run when some are written. It returns
// the bundles that the medium has then, by file.
func cutLong(t *testing.T) (f fixture, have map[string][]byte) {
	t.Helper()
	f = newFixture(t, 100)
	done := 0
	f.options.Progress = func(_, _, _ int) { done++ }
	// A bundle takes about five operations.
	layer := keyfiletest.New(330, keyfiletest.PowerLoss)
	if err := f.run(layer); !errors.Is(err, keyfiletest.ErrCut) || done < 32 || done > 96 {
		t.Fatalf("%d bundles, error %v: the cut is not in the middle", done, err)
	}
	f.options.Progress = nil
	return f, bundles(t, f.options.Medium)
}

func bundles(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "dev-*.age"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, name := range names {
		if out[filepath.Base(name)], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// kept counts the bundles that are as they were: a bundle made again differs.
func kept(t *testing.T, f fixture, have map[string][]byte) int {
	t.Helper()
	n := 0
	for name, data := range bundles(t, f.options.Medium) {
		if bytes.Equal(have[name], data) {
			n++
		}
	}
	return n
}

// A run that is taken up again makes no key for what is durable on the medium,
// and its note is gone in the end.
func TestIssueTakesUpWhereItWasCut(t *testing.T) {
	f, have := cutLong(t)
	if err := f.run(keyfiletest.New(0, keyfiletest.Kill)); err != nil {
		t.Fatal(err)
	}
	if n := kept(t, f, have); n < 32 || n%32 != 0 {
		t.Errorf("%d of %d bundles were left as they were, want the whole chunks", n, len(have))
	}
	f.check(t)
	if _, err := os.Stat(filepath.Join(f.options.Medium, pkgen.ProgressFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the note is there still: %v", err)
	}
}

// What a note says is not taken for true: another file in a bundle's place, a
// changed note, and the note of another run lead to bundles that are made again.
func TestAttackNoteOfProgress(t *testing.T) {
	whole, have := cutLong(t)
	note := filepath.Join(whole.options.Medium, pkgen.ProgressFile)
	for name, tamper := range map[string]func(t *testing.T, f fixture){
		"another file in a bundle's place": func(t *testing.T, f fixture) {
			for file, data := range have {
				path := filepath.Join(f.options.Medium, file)
				if err := os.WriteFile(path, append(bytes.Clone(data), 'x'), keyfile.SecretPerm); err != nil {
					t.Fatal(err)
				}
			}
		},
		"a changed note": func(t *testing.T, f fixture) {
			edit(t, filepath.Join(f.options.Medium, pkgen.ProgressFile), `"ledger_index":3}`, `"ledger_index":4}`)
		},
		"no key for it": func(t *testing.T, f fixture) {
			data, err := os.ReadFile(note)
			if err != nil {
				t.Fatal(err)
			}
			forged := strings.Repeat("0", 64) + string(data[64:])
			if err := os.WriteFile(filepath.Join(f.options.Medium, pkgen.ProgressFile), []byte(forged), keyfile.PublicPerm); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := whole.copy(t, t.TempDir())
			tamper(t, f)
			if err := f.run(keyfiletest.New(0, keyfiletest.Kill)); err != nil {
				t.Fatal(err)
			}
			if n := kept(t, f, have); n != 0 {
				t.Errorf("%d bundles were taken as they were", n)
			}
			f.check(t)
		})
	}
}

// An interruption by the user leaves the note, so that the next run goes on.
func TestInterruptedIssueKeepsItsNote(t *testing.T) {
	f := newFixture(t, 70)
	p, err := pkgen.Open(f.config, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	f.options.Progress = func(int, int, int) { cancel() }
	_, err = p.Issue(ctx, f.requests, f.options)
	if err := errors.Join(p.Close()); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want it interrupted", err)
	}
	f.options.Progress = nil
	have := bundles(t, f.options.Medium)
	if err := f.run(keyfiletest.New(0, keyfiletest.Kill)); err != nil {
		t.Fatal(err)
	}
	if n := kept(t, f, have); n != 32 {
		t.Errorf("%d bundles were left as they were, want 32", n)
	}
	f.check(t)
}

// Of a note, whole lines with the right MAC count, up to the first that has not.
func FuzzProgress(f *testing.F) {
	key := []byte("key")
	line := pkgen.ProgressLine(key, `[{"file":"a","sha256":"`+strings.Repeat("0", 64)+`","ledger_index":3}]`)
	f.Add([]byte(line))
	f.Add([]byte(line + line[:20]))
	f.Add([]byte(pkgen.ProgressLine([]byte("other"), `[]`) + line))
	f.Add([]byte("\n \n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		bundles, held := pkgen.ParseProgress(key, data)
		if held > len(data) || held > 0 && data[held-1] != '\n' || held == 0 && bundles > 0 {
			t.Errorf("%d bundles in %d bytes of %d", bundles, held, len(data))
		}
		if bundles > 0 && !bytes.HasPrefix(data, []byte(line)) {
			t.Errorf("%d bundles of a note that was not made with the key: %q", bundles, data)
		}
	})
}
