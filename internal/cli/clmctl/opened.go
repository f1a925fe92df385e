package clmctl

import (
	"errors"
	"io/fs"
	"os"
)

// openedFile knows the file of the inventory as it was when it was opened: one
// that was removed, or restored from a backup, can be read and written for ever
// by who has it open.
type openedFile struct {
	path string
	info fs.FileInfo
	err  error
}

func (d dataDir) openedFile() openedFile {
	f := openedFile{path: d.path(inventoryFile)}
	f.info, f.err = os.Stat(f.path)
	return f
}

var errReplaced = errors.New("the inventory was removed or replaced: quit, and start again")

// present returns errReplaced if another file, or none, is in its place now.
func (f openedFile) present() error {
	if f.err != nil {
		return f.err
	}
	info, err := os.Stat(f.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(info, f.info) {
		return errReplaced
	}
	return err
}
