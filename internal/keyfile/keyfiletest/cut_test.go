package keyfiletest_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
)

const seeds = 150

// careless does what a durable write should, and leaves out one thing.
type careless struct {
	fsync, rename, syncDir bool
}

func (c careless) write(l keyfile.Layer, path, content string) error {
	name := path
	if c.rename {
		name += ".tmp"
	}
	f, err := l.Create(name, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write([]byte(content)); err == nil && c.fsync {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil && c.rename {
		err = l.Rename(name, path, true)
	}
	if err == nil && c.syncDir {
		err = l.SyncDir(filepath.Dir(path))
	}
	return err
}

// outcomes runs a scheme, loses power in the operation after it, and returns
// what was found in the files.
func outcomes(t *testing.T, scheme func(l keyfile.Layer, dir string) error, files ...string) map[string]int {
	t.Helper()
	count := func() int {
		l := keyfiletest.New(0, keyfiletest.Scatter)
		if err := scheme(l, prepared(t)); err != nil {
			t.Fatal(err)
		}
		return l.Operations()
	}()
	out := map[string]int{}
	for seed := range uint64(seeds) {
		dir := prepared(t)
		l := keyfiletest.NewScattered(count+1, seed)
		if err := scheme(l, dir); err != nil {
			t.Fatal(err)
		}
		if err := l.Remove(filepath.Join(dir, "other")); !errors.Is(err, keyfiletest.ErrCut) {
			t.Fatal(err)
		}
		var found []string
		for _, name := range files {
			data, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				data = []byte("none")
			}
			found = append(found, strings.ReplaceAll(string(data), "\x00", "0"))
		}
		out[strings.Join(found, " ")]++
		if data, err := os.ReadFile(filepath.Join(dir, "other")); err != nil || string(data) != "untouched" {
			t.Fatalf("a file that nobody wrote to: %q, %v", data, err)
		}
	}
	return out
}

func prepared(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "edgeclm-keyfile-")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for name, content := range map[string]string{"a": "old", "other": "untouched"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestScatterFindsCarelessWrites: each of the steps of a durable write is
// missed by somebody who cuts the power often enough.
func TestScatterFindsCarelessWrites(t *testing.T) {
	for name, tt := range map[string]struct {
		careless
		want, never []string
	}{
		"all of it":      {careless{true, true, true}, []string{"new"}, []string{"old", "none", "", "000", "n"}},
		"no fsync":       {careless{false, true, true}, []string{"new", "", "000", "n"}, []string{"old", "none"}},
		"no directory":   {careless{true, true, false}, []string{"new", "old"}, []string{"none", "", "000", "n"}},
		"neither":        {careless{false, true, false}, []string{"new", "old", "", "000", "n"}, []string{"none"}},
		"not synced yet": {careless{false, false, false}, []string{"new", "none", "", "000", "n"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			file := "a"
			if !tt.rename {
				file = "b"
			}
			found := outcomes(t, func(l keyfile.Layer, dir string) error { return tt.write(l, filepath.Join(dir, file), "new") }, file)
			for _, w := range tt.want {
				if found[w] == 0 {
					t.Errorf("never %q: %v", w, found)
				}
			}
			for _, w := range tt.never {
				if found[w] != 0 {
					t.Errorf("%q: %v", w, found)
				}
			}
		})
	}
}

// TestScatterReorders: of two writes the later one may be there without the
// earlier, unless a sync stands between them.
func TestScatterReorders(t *testing.T) {
	for _, between := range []bool{false, true} {
		found := outcomes(t, func(l keyfile.Layer, dir string) error {
			return errors.Join(
				careless{true, true, between}.write(l, filepath.Join(dir, "b"), "first"),
				careless{true, true, false}.write(l, filepath.Join(dir, "c"), "second"))
		}, "b", "c")
		if (found["none second"] > 0) == between || (found["none none"] > 0) == between || found["first second"] == 0 || found["first none"] == 0 {
			t.Errorf("sync between: %v: %v", between, found)
		}
	}
}

// TestScatterOfDirectories: what was removed may come back, a directory with
// what was in it, and what was made may be gone with all that is in it.
func TestScatterOfDirectories(t *testing.T) {
	found := outcomes(t, func(l keyfile.Layer, dir string) error {
		d := filepath.Join(dir, "d")
		err := errors.Join(l.Mkdir(d, 0o700), careless{true, true, true}.write(l, filepath.Join(d, "f"), "content"), l.SyncDir(dir))
		return errors.Join(err, l.Remove(filepath.Join(d, "f")), l.Remove(d), l.Symlink("a", filepath.Join(dir, "link")), l.Remove(filepath.Join(dir, "a")))
	}, "a", "d/f", "link")
	for _, want := range []string{"old content old", "old none none", "none content none", "old none old"} {
		if found[want] == 0 {
			t.Errorf("never %q: %v", want, found)
		}
	}
	found = outcomes(t, func(l keyfile.Layer, dir string) error {
		d := filepath.Join(dir, "d")
		return errors.Join(l.Mkdir(d, 0o700), careless{true, true, true}.write(l, filepath.Join(d, "f"), "content"))
	}, "d/f")
	if found["none"] == 0 || found["content"] == 0 || len(found) != 2 {
		t.Errorf("a new directory: %v", found)
	}
}

// TestScatterOfAppends: an append may be there in part, and not before what
// was there; the same seed gives the same.
func TestScatterOfAppends(t *testing.T) {
	scheme := func(l keyfile.Layer, dir string) error {
		f, err := l.Append(filepath.Join(dir, "a"))
		if err != nil {
			return err
		}
		_, err = f.Write([]byte("xyz"))
		return errors.Join(err, f.Close())
	}
	found := outcomes(t, scheme, "a")
	for content := range found {
		if !strings.HasPrefix(content, "old") || len(content) > 6 {
			t.Errorf("%q", content)
		}
	}
	if len(found) < 4 {
		t.Errorf("%v", found)
	}
	for content, n := range outcomes(t, scheme, "a") {
		if found[content] != n {
			t.Errorf("%q %d times, then %d", content, found[content], n)
		}
	}
}
