package keyfile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// wipeChunk is how many bytes Wipe writes at once.
const wipeChunk = 64 << 10

// Wipe overwrites a file with random bytes, makes that durable, and removes it;
// that it does not exist is no error. A symbolic link is removed, and what it
// leads to is left alone.
//
// Flash does not write in place: the controller of a card or stick puts the new
// bytes elsewhere and the old ones stay in its spare blocks until it needs
// them. Wipe keeps them from whoever reads the medium through its controller,
// not from whoever reads the chips.
func (f Files) Wipe(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Mode().IsRegular() {
		err = f.overwrite(path, info.Size())
	}
	if err == nil {
		err = f.fs().Remove(path)
	}
	if err == nil {
		err = f.fs().SyncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("wipe %s: %w", path, err)
	}
	return nil
}

func (f Files) overwrite(path string, size int64) error {
	file, err := f.fs().Overwrite(path)
	if err != nil {
		return err
	}
	buf := make([]byte, min(size, wipeChunk))
	for err == nil && size > 0 {
		chunk := buf[:min(size, wipeChunk)]
		if _, err = io.ReadFull(rand.Reader, chunk); err == nil {
			_, err = file.Write(chunk)
		}
		size -= int64(len(chunk))
	}
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// maxDepth bounds the directories below one that WipeDir empties.
const maxDepth = 8

// WipeDir wipes the files in a directory and below, and removes the directories
// below, except what has one of these names at the top. It goes on after an
// error, so that as few secrets as possible stay.
func (f Files) WipeDir(dir string, except ...string) error { return f.wipeDir(dir, maxDepth, except) }

func (f Files) wipeDir(dir string, depth int, except []string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if depth == 0 {
		return fmt.Errorf("%s is more than %d directories deep", dir, maxDepth)
	}
	var errs []error
	for _, e := range entries {
		if !e.IsDir() && !slices.Contains(except, e.Name()) {
			errs = append(errs, f.Wipe(filepath.Join(dir, e.Name())))
		}
	}
	for _, e := range entries {
		if !e.IsDir() || slices.Contains(except, e.Name()) {
			continue
		}
		below := filepath.Join(dir, e.Name())
		err := f.wipeDir(below, depth-1, nil)
		if err == nil {
			err = f.RemoveDurable(below)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
