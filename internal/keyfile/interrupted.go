package keyfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Interrupted returns the temporary files that interrupted writes of a file left
// beside it, in no order. Where the file is gone and the file system may have
// removed it before it renamed its successor (exFAT by FUSE does, and no FAT has
// a journal), one of them may be what it should be; the caller can tell by its
// content, which may be torn.
func Interrupted(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		name := e.Name()
		if e.Type().IsRegular() && isTemp(name, tempMark) && strings.HasPrefix(name, "."+filepath.Base(path)+tempMark) {
			found = append(found, filepath.Join(filepath.Dir(path), name))
		}
	}
	return found, nil
}

// Complete renames a temporary file of Interrupted to the file that it was
// written for, durably; one that exists is an error that wraps ErrExists.
func (f Files) Complete(temp, path string) error {
	err := f.fs().Rename(temp, path, false)
	if errors.Is(err, fs.ErrExist) {
		err = ErrExists
	}
	if err == nil {
		err = f.fs().SyncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("complete %s: %w", path, err)
	}
	return nil
}
