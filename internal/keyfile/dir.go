package keyfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// EnsureDir makes a directory for secrets: mode 0700, its parents too if they
// do not exist. See Files.EnsureDir.
func EnsureDir(path string) error { return Files{}.EnsureDir(path) }

// EnsureDir makes a directory for secrets: mode 0700, its parents too if they
// do not exist. An empty directory is tightened to 0700; one with content that
// others may enter is an error that wraps ErrPermissions, since it may not be
// meant for secrets at all.
func (f Files) EnsureDir(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f.makeDir(filepath.Clean(path), DirPerm)
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", path)
	}
	if info.Mode().Perm()&0o077 == 0 {
		return nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	if len(entries) > 0 || info.Mode()&fs.ModeSticky != 0 {
		return fmt.Errorf("directory %s has mode %04o, want 0700 (chmod 700 %s): %w", path, info.Mode().Perm(), path, ErrPermissions)
	}
	return os.Chmod(path, DirPerm)
}

// EnsureDirPerm makes a directory, and its parents, that do not exist; one that
// does is left as it is.
func (f Files) EnsureDirPerm(path string, perm fs.FileMode) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f.makeDir(filepath.Clean(path), perm)
	}
	if err == nil && !info.IsDir() {
		return fmt.Errorf("%s is not a directory", path)
	}
	return err
}

func (f Files) makeDir(path string, perm fs.FileMode) error {
	parent := filepath.Dir(path)
	if _, err := os.Stat(parent); errors.Is(err, fs.ErrNotExist) {
		if err := f.makeDir(parent, perm); err != nil {
			return err
		}
	}
	if err := f.fs().Mkdir(path, perm); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := f.fs().SyncDir(parent); err != nil {
		return fmt.Errorf("sync directory %s: %w", parent, err)
	}
	return nil
}
