package pkgen

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// pending notes the share files of a sharing that does not count yet.
type pending struct {
	sharing *custody.Sharing
	files   []pendingShare
}

// pendingShare is a share file that a run is about to write.
type pendingShare struct {
	Path   string `json:"path"` // absolute
	SHA256 Hash   `json:"sha256"`
}

// pendingJSON is the form of shares.pending.json.
type pendingJSON struct {
	Version int             `json:"version"`
	Sharing json.RawMessage `json:"sharing"` // as in shares.json
	Files   []pendingShare  `json:"files"`
}

const pendingVersion = 1

// errPending is wrapped when the note is malformed.
var errPending = errors.New("malformed note of shares")

func (p pending) marshal() ([]byte, error) {
	sharing, err := p.sharing.Marshal()
	if err != nil {
		return nil, err
	}
	data, err := json.MarshalIndent(pendingJSON{pendingVersion, sharing, p.files}, "", "  ")
	return append(data, '\n'), err
}

func parsePending(data []byte) (pending, error) {
	var j pendingJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return pending{}, fmt.Errorf("%w: %w", errPending, err)
	}
	if j.Version != pendingVersion {
		return pending{}, fmt.Errorf("%w: version %d, this release reads %d", errPending, j.Version, pendingVersion)
	}
	s, err := custody.ParseSharing(j.Sharing)
	if err != nil {
		return pending{}, fmt.Errorf("%w: %w", errPending, err)
	}
	if len(j.Files) != len(s.Holders()) {
		return pending{}, fmt.Errorf("%w: %d files for %d shares", errPending, len(j.Files), len(s.Holders()))
	}
	for i, f := range j.Files {
		// What it names is wiped one day.
		if !filepath.IsAbs(f.Path) || filepath.Base(f.Path) != s.FileName(i+1) {
			return pending{}, fmt.Errorf("%w: %.80q is no file of share %d", errPending, f.Path, i+1)
		}
	}
	return pending{s, j.Files}, nil
}

// readPending reads the note; there is none is fs.ErrNotExist.
func readPending(path string) (pending, error) {
	data, err := keyfile.Read(path, maxSmallFile)
	if err != nil {
		return pending{}, err
	}
	p, err := parsePending(data)
	if err != nil {
		return p, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// left returns the files of the note that are there, byte for byte.
func (p pending) left() []string {
	var paths []string
	for _, f := range p.files {
		data, err := keyfile.Read(f.Path, custody.MaxShareFile)
		if err == nil && Hash(sha256.Sum256(data)) == f.SHA256 {
			paths = append(paths, f.Path)
		}
	}
	return paths
}
