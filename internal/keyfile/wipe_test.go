package keyfile_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
)

// The bytes themselves are overwritten, not only the name removed: a second
// name of the file shows it.
func TestWipeOverwrites(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 200_000} {
		dir := t.TempDir()
		path, link := filepath.Join(dir, "key"), filepath.Join(dir, "same")
		secret := bytes.Repeat([]byte("s"), size)
		if err := errors.Join(os.WriteFile(path, secret, 0o600), os.Link(path, link)); err != nil {
			t.Fatal(err)
		}
		if err := (keyfile.Files{}).Wipe(path); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("size %d: still there: %v", size, err)
		}
		got, err := os.ReadFile(link)
		if err != nil || len(got) != size || bytes.Contains(got, []byte("ssssssssssssssss")) || size > 1000 && bytes.Equal(got[:1000], got[size-1000:]) {
			t.Errorf("size %d: not overwritten: %d bytes, %v", size, len(got), err)
		}
		if err := (keyfile.Files{}).Wipe(path); err != nil {
			t.Errorf("again: %v", err)
		}
	}
}

// Attack: a link in place of a secret makes the owner overwrite another file.
func TestWipeFollowsNoLink(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	other, link := filepath.Join(dir, "other"), filepath.Join(dir, "key")
	if err := errors.Join(os.WriteFile(other, []byte("precious"), 0o600), os.Symlink(other, link)); err != nil {
		t.Fatal(err)
	}
	if err := (keyfile.Files{}).Wipe(link); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(other)
	if err != nil || string(got) != "precious" {
		t.Errorf("%q, %v", got, err)
	}
}

// The file is removed only once its overwriting is durable.
func TestWipeSyncsBeforeItRemoves(t *testing.T) {
	t.Parallel()
	for _, mode := range []keyfiletest.Mode{keyfiletest.Kill, keyfiletest.PowerLoss} {
		for cut := 1; ; cut++ {
			path := filepath.Join(t.TempDir(), "key")
			secret := bytes.Repeat([]byte("s"), 64)
			if err := os.WriteFile(path, secret, 0o600); err != nil {
				t.Fatal(err)
			}
			layer := keyfiletest.New(cut, mode)
			err := keyfile.On(layer).Wipe(path)
			if err == nil {
				break
			}
			if !errors.Is(err, keyfiletest.ErrCut) {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			// Operations: open, write, sync, remove, sync of the directory.
			if cut >= 4 && err == nil && bytes.Contains(got, []byte("ssss")) {
				t.Errorf("cut %d: %q", cut, got)
			}
			if cut < 4 && err != nil {
				t.Errorf("cut %d: %v", cut, err)
			}
		}
	}
}
