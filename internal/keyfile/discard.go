package keyfile

import (
	"io/fs"
)

// Discard returns Files that write nothing and succeed: a run is gone through to
// see what it would do.
func Discard() Files { return Files{discard{}} }

// ReadBack is the function ReadBack; of Files that write nothing there is
// nothing to read.
func (f Files) ReadBack(path string, want []byte) error {
	if f.discards() {
		return nil
	}
	return ReadBack(path, want)
}

// ReadBackContent is the function ReadBackContent, as ReadBack.
func (f Files) ReadBackContent(path string, want Content) error {
	if f.discards() {
		return nil
	}
	return ReadBackContent(path, want)
}

func (f Files) discards() bool {
	_, ok := f.layer.(discard)
	return ok
}

// discard is the Layer of Discard.
type discard struct{}

type discardFile struct{}

func (discardFile) Write(p []byte) (int, error) { return len(p), nil }
func (discardFile) Sync() error                 { return nil }
func (discardFile) Close() error                { return nil }

// Create implements Layer.
func (discard) Create(string, fs.FileMode) (File, error) { return discardFile{}, nil }

// Append implements Layer.
func (discard) Append(string) (File, error) { return discardFile{}, nil }

// Overwrite implements Layer.
func (discard) Overwrite(string) (File, error) { return discardFile{}, nil }

// Rename implements Layer.
func (discard) Rename(string, string, bool) error { return nil }

// Remove implements Layer.
func (discard) Remove(string) error { return nil }

// Truncate implements Layer.
func (discard) Truncate(string, int64) error { return nil }

// Mkdir implements Layer.
func (discard) Mkdir(string, fs.FileMode) error { return nil }

// Symlink implements Layer.
func (discard) Symlink(string, string) error { return nil }

// SyncDir implements Layer.
func (discard) SyncDir(string) error { return nil }
