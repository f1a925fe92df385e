package receipt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// DirName is the folder of a medium that holds receipts, with subfolders named
// as those of the bundles: a folder of FAT takes some 10,000 names of this length.
const DirName = "receipts"

// Modes of what everybody may read.
const (
	dirPerm  = 0o755
	filePerm = keyfile.PublicPerm
)

// DirOf returns where the receipt for a file of a medium belongs, its manifest
// or a bundle: the folder receipts beside the manifest, or beside the file if
// there is none.
func DirOf(path string) string {
	dir := filepath.Dir(path)
	if has(dir, bundle.ManifestName) {
		return filepath.Join(dir, DirName)
	}
	// Only a folder that issue makes is a part of the medium above it.
	if root, folder := filepath.Dir(dir), filepath.Base(dir); isFolder(folder) && has(root, bundle.ManifestName) {
		return filepath.Join(root, DirName, folder)
	}
	return filepath.Join(dir, DirName)
}

func has(dir, name string) bool {
	info, err := os.Stat(filepath.Join(dir, name))
	return err == nil && info.Mode().IsRegular()
}

// isFolder reports whether name is one of the folders 001 to 999 of a medium.
func isFolder(name string) bool {
	for _, c := range []byte(name) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(name) == 3
}

// Write writes a receipt, as Sign returned it, into a folder that it makes if
// need be, reads it back from the medium, and returns its path. One that says
// the same and holds is left alone; one of the name that does not is replaced.
func Write(files keyfile.Files, dir string, data []byte, params *ibc.Params) (path string, err error) {
	s, err := Parse(data)
	if err != nil {
		return "", err
	}
	name, err := s.FileName()
	if err != nil {
		return "", err
	}
	if err := makeDir(files, dir); err != nil {
		return "", err
	}
	path = filepath.Join(dir, name)
	if present, err := Read(path); err == nil {
		if same, err := present.FileName(); err == nil && same == name && present.Verify(params) == nil {
			return path, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrFormat) && !errors.Is(err, ErrVersion) {
		return "", err
	}
	return path, WriteFile(files, path, data)
}

// makeDir makes the folder. Who prepares a medium must not lead a writer, who may
// be root, to elsewhere.
func makeDir(files keyfile.Files, dir string) error {
	for _, d := range []string{filepath.Dir(dir), dir} {
		info, err := os.Lstat(d)
		inside := d == dir || filepath.Base(d) == DirName
		if err == nil && inside && !info.IsDir() {
			return fmt.Errorf("%s is not a directory", d)
		}
	}
	return files.EnsureDirPerm(dir, dirPerm)
}

// WriteFile writes a receipt to a file, whatever is there, and reads it back
// from the medium.
func WriteFile(files keyfile.Files, path string, data []byte) error {
	if err := files.WriteDurable(path, data, filePerm); err != nil {
		return err
	}
	return keyfile.ReadBack(path, data)
}

// Read reads and parses the file of a receipt; see Parse.
func Read(path string) (*Signed, error) {
	data, err := keyfile.Read(path, MaxSize)
	if errors.Is(err, keyfile.ErrTooLarge) {
		err = fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if err != nil {
		return nil, err
	}
	s, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}
