package keyfile_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
)

func mustWrite(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// names lists a directory.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestWriteDurable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	for _, want := range []string{"first", "second, longer", ""} {
		if err := keyfile.WriteDurable(path, []byte(want), keyfile.SecretPerm); err != nil {
			t.Fatal(err)
		}
		if got := content(t, path); got != want {
			t.Errorf("content %q, want %q", got, want)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %04o, want 0600", info.Mode().Perm())
	}
	if got := names(t, filepath.Dir(path)); len(got) != 1 {
		t.Errorf("left behind: %v", got)
	}
}

func TestCreateDurableRefusesToOverwrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	if err := keyfile.CreateDurable(path, []byte("first"), keyfile.SecretPerm); err != nil {
		t.Fatal(err)
	}
	err := keyfile.CreateDurable(path, []byte("second"), keyfile.SecretPerm)
	if !errors.Is(err, keyfile.ErrExists) {
		t.Fatalf("error %v, want ErrExists", err)
	}
	if got := content(t, path); got != "first" {
		t.Errorf("content %q after a refused create", got)
	}
	if got := names(t, dir); len(got) != 1 {
		t.Errorf("left behind: %v", got)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := keyfile.CreateDurable(filepath.Join(dir, "link"), nil, 0o600); !errors.Is(err, keyfile.ErrExists) {
		t.Errorf("dangling link: error %v, want ErrExists", err)
	}
}

// The rename itself refuses, for whoever comes between look and rename.
func TestRenameRefusesToReplace(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	mustWrite(t, from, "new")
	mustWrite(t, to, "old")
	if err := (keyfile.OS{}).Rename(from, to, false); !errors.Is(err, os.ErrExist) {
		t.Fatalf("error %v, want ErrExist", err)
	}
	if got := content(t, to); got != "old" {
		t.Errorf("content %q", got)
	}
}

func TestReadSecretRefusesOpenPermissions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	mustWrite(t, path, "secret")
	for _, mode := range []os.FileMode{0o644, 0o640, 0o620, 0o604} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := keyfile.ReadSecret(path, 100); !errors.Is(err, keyfile.ErrPermissions) {
			t.Errorf("mode %04o: error %v, want ErrPermissions", mode, err)
		}
		if _, err := keyfile.Read(path, 100); err != nil {
			t.Errorf("mode %04o: public read: %v", mode, err)
		}
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := keyfile.ReadSecret(path, 100); err != nil || string(got) != "secret" {
		t.Errorf("mode 0600: %q, %v", got, err)
	}
}

func TestReadIsBounded(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	mustWrite(t, path, "12345678")
	if got, err := keyfile.Read(path, 8); err != nil || string(got) != "12345678" {
		t.Errorf("at the bound: %q, %v", got, err)
	}
	if _, err := keyfile.Read(path, 7); !errors.Is(err, keyfile.ErrTooLarge) {
		t.Errorf("above the bound: error %v, want ErrTooLarge", err)
	}
	if _, err := keyfile.Read(dir, 100); err == nil {
		t.Error("a directory was read")
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	// Were it opened like a file, this would wait for a writer for ever.
	if _, err := keyfile.Read(fifo, 100); err == nil {
		t.Error("a FIFO was read")
	}
	if _, err := keyfile.Read("/dev/zero", 100); err == nil {
		t.Error("a device was read")
	}
}

func TestReadBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	want := bytes.Repeat([]byte("x"), 10000)
	if err := keyfile.WriteDurable(path, want, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := keyfile.ReadBack(path, want); err != nil {
		t.Error(err)
	}
	for name, other := range map[string][]byte{
		"shorter": want[1:], "longer": append([]byte("y"), want...), "changed": append([]byte("y"), want[1:]...), "empty": nil,
	} {
		if err := keyfile.ReadBack(path, other); !errors.Is(err, keyfile.ErrReadBack) {
			t.Errorf("%s: error %v, want ErrReadBack", name, err)
		}
	}
}

func TestEnsureDir(t *testing.T) {
	base := t.TempDir()
	mode := func(path string) os.FileMode {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	deep := filepath.Join(base, "a", "b", "c")
	if err := keyfile.EnsureDir(deep); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{deep, filepath.Dir(deep)} {
		if m := mode(dir); m != 0o700 {
			t.Errorf("%s has mode %04o", dir, m)
		}
	}
	empty := filepath.Join(base, "empty")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := keyfile.EnsureDir(empty); err != nil || mode(empty) != 0o700 {
		t.Errorf("empty directory: %v, mode %04o", err, mode(empty))
	}
	full := filepath.Join(base, "full")
	if err := os.Mkdir(full, 0o755); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, filepath.Join(full, "file"), "")
	if err := keyfile.EnsureDir(full); !errors.Is(err, keyfile.ErrPermissions) || mode(full) != 0o755 {
		t.Errorf("full directory: error %v, mode %04o", err, mode(full))
	}
	if err := keyfile.EnsureDir(filepath.Join(full, "file")); err == nil {
		t.Error("a file passed for a directory")
	}
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := keyfile.Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keyfile.Lock(path); !errors.Is(err, keyfile.ErrLocked) {
		t.Errorf("second lock: error %v, want ErrLocked", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	unlock, err = keyfile.Lock(path)
	if err != nil {
		t.Fatalf("after release: %v", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
}

func TestSweepTakesOnlyTemporaryFiles(t *testing.T) {
	dir := t.TempDir()
	keep := []string{".key.tmp-", ".key.tmp-0123456789abcdeg", ".tmp-0123456789abcdef", "key", "key.tmp-0123456789abcdef"}
	for _, name := range append([]string{".key.tmp-0123456789abcdef"}, keep...) {
		mustWrite(t, filepath.Join(dir, name), "")
	}
	if err := (keyfile.Files{}).Sweep(dir); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(names(t, dir), " "); got != strings.Join(keep, " ") {
		t.Errorf("left: %s\nwant: %s", got, strings.Join(keep, " "))
	}
}

// scatters is how many times each cut is made with another part of what was
// not synced.
const scatters = 20

func newLayer(cut int, mode keyfiletest.Mode, seed uint64) *keyfiletest.Layer {
	if mode == keyfiletest.Scatter {
		return keyfiletest.NewScattered(cut, seed)
	}
	return keyfiletest.New(cut, mode)
}

// A write that is cut at any operation leaves the old content or the new, and
// with an error the caller does not rely on the new one; without an error, it
// is the new one even if the power fails next.
func TestCutAtEveryOperation(t *testing.T) {
	writes := map[string]func(keyfile.Files, string) error{
		"replace": func(f keyfile.Files, path string) error { return f.WriteDurable(path, []byte("new content"), 0o600) },
		"create": func(f keyfile.Files, path string) error {
			return f.CreateDurable(path+".created", []byte("new content"), 0o600)
		},
		"batch": func(f keyfile.Files, path string) error {
			b := f.NewBatch()
			return errors.Join(b.Write(path, []byte("new content"), 0o600), b.Create(path+".created", []byte("new content"), 0o600), b.Commit())
		},
	}
	for name, write := range writes {
		for run := range 2 + scatters {
			mode := min(keyfiletest.Mode(run), keyfiletest.Scatter)
			for cut := 1; ; cut++ {
				path := filepath.Join(t.TempDir(), "key")
				mustWrite(t, path, "old content")
				layer := newLayer(cut, mode, uint64(run))
				err := write(keyfile.On(layer), path)
				if !layer.Cut() {
					if err != nil || cut < 5 {
						t.Fatalf("%s: uncut after %d operations: %v", name, cut-1, err)
					}
					break
				}
				if !errors.Is(err, keyfiletest.ErrCut) {
					t.Fatalf("%s cut at %d: error %v", name, cut, err)
				}
				if got := content(t, path); got != "old content" && got != "new content" {
					t.Errorf("%s cut at %d, mode %d: torn: %q", name, cut, mode, got)
				}
				if data, err := os.ReadFile(path + ".created"); err == nil && string(data) != "new content" {
					t.Errorf("%s cut at %d, mode %d: torn: %q", name, cut, mode, data)
				}
			}
		}
	}
}

// Without an error, what was written survives the loss of power at the next
// operation.
func TestDurableOnceReturned(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	first := keyfiletest.New(0, keyfiletest.PowerLoss)
	if err := keyfile.On(first).WriteDurable(path, []byte("probe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for run := range 1 + scatters {
		layer := newLayer(first.Operations()+1, min(keyfiletest.Mode(run+1), keyfiletest.Scatter), uint64(run))
		files := keyfile.On(layer)
		if err := files.WriteDurable(path, []byte("promised"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := files.WriteDurable(path, []byte("later"), 0o600); !errors.Is(err, keyfiletest.ErrCut) {
			t.Fatalf("error %v, want ErrCut", err)
		}
		if got := content(t, path); got != "promised" {
			t.Errorf("content %q after the power failed", got)
		}
	}
}

func TestAppendDurable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := (keyfile.Files{}).AppendDurable(path, []byte("x")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: error %v", err)
	}
	mustWrite(t, path, "one\n")
	layer := keyfiletest.New(0, keyfiletest.PowerLoss)
	if err := keyfile.On(layer).AppendDurable(path, []byte("two\n")); err != nil {
		t.Fatal(err)
	}
	for cut := 1; cut <= layer.Operations()+1; cut++ {
		for run := range 2 + scatters {
			mode := min(keyfiletest.Mode(run), keyfiletest.Scatter)
			mustWrite(t, path, "one\n")
			l := newLayer(cut, mode, uint64(run))
			files := keyfile.On(l)
			err := files.AppendDurable(path, []byte("two\n"))
			_ = files.AppendDurable(path, []byte("three\n"))
			got := strings.TrimRight(content(t, path), "\x00") // blocks that were never written
			if !strings.HasPrefix("one\ntwo\nthree\n", got) || !strings.HasPrefix(got, "one\n") {
				t.Errorf("cut at %d, mode %d: %q", cut, mode, got)
			}
			if err == nil && !strings.HasPrefix(got, "one\ntwo\n") {
				t.Errorf("cut at %d, mode %d: appended without error, then lost: %q", cut, mode, got)
			}
		}
	}
	if err := (keyfile.Files{}).TruncateDurable(path, 4); err != nil || content(t, path) != "one\n" {
		t.Errorf("truncate: %v, %q", err, content(t, path))
	}
	for range 2 {
		if err := (keyfile.Files{}).RemoveDurable(path); err != nil {
			t.Errorf("remove: %v", err)
		}
	}
}
