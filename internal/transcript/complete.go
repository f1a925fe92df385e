package transcript

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/edgeclm/edgeclm/internal/hashlog"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// Foresee notes that a file will grow by what the run proposes, and others do
// later. It goes before Propose.
func (r *Run) Foresee(path string) error {
	f := r.file(path)
	f.Change = Grown
	return r.locked(func() error {
		r.pending = append(r.pending, f)
		return nil
	})
}

// Complete signs the transcript of a run that was proposed, by
// its ID, in the directory of a PKG; one that is signed already stays as it is.
// It reports false if there is none, or if another run has begun since: that one
// names the file as it is, and when it is signed it vouches for it. A signature
// that was cut when it was written is made again.
func Complete(files keyfile.Files, dir string, id hashlog.Hash, sign hashlog.Signer) (signed bool, err error) {
	folder := filepath.Join(dir, Dir)
	unlock, err := keyfile.Lock(filepath.Join(folder, lockFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	last, err := latest(folder)
	if err != nil || last == nil {
		return false, err
	}
	path := filepath.Join(folder, last.File)
	first, _, _ := bytes.Cut(last.data, []byte("\n"))
	if sum(first) != id {
		return false, nil
	}
	whole := bytes.LastIndexByte(last.data, '\n') + 1
	switch stateOf(last.data[:whole]) {
	case Signed:
		return true, nil
	case Cut:
		return false, fmt.Errorf("sign transcript %s: it was cut", path)
	}
	if whole < len(last.data) {
		if err := files.TruncateDurable(path, int64(whole)); err != nil {
			return false, err
		}
	}
	return true, Sign(files, path, sign)
}
