package keyfiletest_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
)

// stick returns a mounted stick, and files that are written on it.
func stick(t *testing.T, o keyfiletest.FATOptions) (*keyfiletest.FAT, keyfile.Files, string) {
	t.Helper()
	dir := t.TempDir()
	l := keyfiletest.NewFAT(keyfiletest.New(0, keyfiletest.Kill), dir, o)
	return l, keyfile.On(l), dir
}

func TestFATNames(t *testing.T) {
	l, _, dir := stick(t, keyfiletest.FATOptions{})
	if err := os.WriteFile(filepath.Join(dir, "There.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{
		"a:b": syscall.EINVAL, `a\b`: syscall.EINVAL, "a?": syscall.EINVAL, "a*": syscall.EINVAL, "a|b": syscall.EINVAL, "a<b": syscall.EINVAL,
		"a>b": syscall.EINVAL, `a"b`: syscall.EINVAL, "a\x01": syscall.EINVAL, "a.": syscall.EINVAL, "a ": syscall.EINVAL,
		"con": syscall.EINVAL, "NUL.txt": syscall.EINVAL, "com1.age": syscall.EINVAL, "there.txt": keyfiletest.ErrFATCase, "There.txt": fs.ErrExist,
		strings.Repeat("é", 256): syscall.ENAMETOOLONG, "a=b": nil, ".hidden.tmp-0": nil, "a b.c": nil, "console": nil, "ümlaut": nil,
	} {
		f, err := l.Create(filepath.Join(dir, name), 0o600)
		if !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", name, err, want)
		}
		if err == nil {
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			if err := l.Rename(filepath.Join(dir, name), filepath.Join(dir, "a:c"), true); !errors.Is(err, syscall.EINVAL) {
				t.Errorf("%q renamed: %v", name, err)
			}
		}
	}
	// Beside the stick everything is as ever.
	if f, err := l.Create(filepath.Join(t.TempDir(), "a:b"), 0o600); err != nil || f.Close() != nil {
		t.Error(err)
	}
	if err := l.Rename(filepath.Join(dir, "a=b"), filepath.Join(t.TempDir(), "x"), true); !errors.Is(err, syscall.EXDEV) {
		t.Errorf("from the stick to the disk: %v", err)
	}
}

func TestFATHasNeitherPermissionsNorLinks(t *testing.T) {
	l, files, dir := stick(t, keyfiletest.FATOptions{})
	file := filepath.Join(dir, "sub", "file")
	if err := errors.Join(files.EnsureDirPerm(filepath.Dir(file), 0o700), files.CreateDurable(file, []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Dir(file)} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	info, err := os.Stat(file)
	if err != nil || info.ModTime().Truncate(2*time.Second) != info.ModTime() {
		t.Errorf("modified at %v", info.ModTime())
	}
	if err := l.Symlink("file", filepath.Join(dir, "link")); !errors.Is(err, syscall.EPERM) {
		t.Errorf("symbolic link: %v", err)
	}
	if err := files.CreateDurable(file, []byte("y"), 0o600); !errors.Is(err, keyfile.ErrExists) {
		t.Errorf("created again: %v", err)
	}
	other := filepath.Join(dir, "other")
	if err := files.CreateDurable(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.Rename(other, file, false); !errors.Is(err, fs.ErrExist) {
		t.Errorf("renamed over another: %v", err)
	}
	if _, err := keyfile.ReadSecret(file, 10); !errors.Is(err, keyfile.ErrPermissions) {
		t.Errorf("read as a secret: %v", err)
	}
}

func TestFATIsFull(t *testing.T) {
	_, files, dir := stick(t, keyfiletest.FATOptions{Capacity: 8192})
	if err := files.WriteDurable(filepath.Join(dir, "a"), make([]byte, 4097), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := files.WriteDurable(filepath.Join(dir, "b"), make([]byte, 10), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a third cluster of two: %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if err := files.AppendDurable(filepath.Join(dir, "a"), make([]byte, 4095)); err != nil {
		t.Errorf("what is left of a cluster: %v", err)
	}
}

func TestFATFilesEndAt4GiB(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "large")
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<32-1)); err != nil {
		t.Fatal(err)
	}
	l := keyfiletest.NewFAT(keyfile.OS{}, dir, keyfiletest.FATOptions{})
	if err := keyfile.On(l).AppendDurable(path, []byte{0}); !errors.Is(err, syscall.EFBIG) {
		t.Errorf("a file of 4 GiB: %v", err)
	}
}

// An operation fails once, whichever it is: the error is told, nothing is left
// of the attempt but perhaps a temporary file, and the next one succeeds.
func TestFATFailsOnce(t *testing.T) {
	for at := 1; ; at++ {
		l, files, dir := stick(t, keyfiletest.FATOptions{FailAt: at, Fail: syscall.EIO})
		path := filepath.Join(dir, "file")
		err := files.WriteDurable(path, []byte("content"), 0o600)
		if !l.Failed() {
			if err != nil || at < 5 {
				t.Fatalf("unfailed after %d operations: %v", at-1, err)
			}
			return
		}
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("operation %d failed: %v", at, err)
		}
		if err := errors.Join(files.WriteDurable(path, []byte("content"), 0o600), keyfile.ReadBack(path, []byte("content"))); err != nil {
			t.Errorf("after operation %d: %v", at, err)
		}
	}
}

// Without fsync of directories, what was written is gone with the power, though
// every call has succeeded.
func TestFATWithoutDirectorySync(t *testing.T) {
	for _, noSync := range []bool{false, true} {
		dir := t.TempDir()
		cut := keyfiletest.New(7, keyfiletest.PowerLoss)
		l := keyfiletest.NewFAT(cut, dir, keyfiletest.FATOptions{NoDirSync: noSync})
		path := filepath.Join(dir, "file")
		if err := keyfile.On(l).WriteDurable(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		for !cut.Cut() {
			_ = l.Remove(filepath.Join(dir, "none"))
		}
		if _, err := os.Stat(path); noSync != errors.Is(err, fs.ErrNotExist) {
			t.Errorf("no sync %t: %v", noSync, err)
		}
	}
}
