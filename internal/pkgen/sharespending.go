package pkgen

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// described is what is public of a sharing, of either kind.
type described interface {
	Marshal() ([]byte, error)
	Holders() []string
	FileName(index int) string
}

// note is where a kind of sharing notes its share files.
type note[S described] struct {
	file         string // in the PKG's directory
	parseSharing func([]byte) (S, error)
}

func sharesNote() note[*custody.Sharing] {
	return note[*custody.Sharing]{pendingFile, custody.ParseSharing}
}

func recoveryNote() note[*custody.RecoverySharing] {
	return note[*custody.RecoverySharing]{recoveryPendingFile, custody.ParseRecoverySharing}
}

// pending notes the share files of a sharing that does not count yet.
type pending[S described] struct {
	sharing S
	files   []pendingShare
}

// pendingShare is a share file that a run is about to write.
type pendingShare struct {
	Path   string `json:"path"` // absolute
	SHA256 Hash   `json:"sha256"`
}

// pendingJSON is the form of a note.
type pendingJSON struct {
	Version int             `json:"version"`
	Sharing json.RawMessage `json:"sharing"` // as in its description
	Files   []pendingShare  `json:"files"`
}

const pendingVersion = 1

// errPending is wrapped when the note is malformed.
var errPending = errors.New("malformed note of shares")

func (p pending[S]) marshal() ([]byte, error) {
	sharing, err := p.sharing.Marshal()
	if err != nil {
		return nil, err
	}
	data, err := json.MarshalIndent(pendingJSON{pendingVersion, sharing, p.files}, "", "  ")
	return append(data, '\n'), err
}

func (n note[S]) parse(data []byte) (pending[S], error) {
	var j pendingJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return pending[S]{}, fmt.Errorf("%w: %w", errPending, err)
	}
	if j.Version != pendingVersion {
		return pending[S]{}, fmt.Errorf("%w: version %d, this release reads %d", errPending, j.Version, pendingVersion)
	}
	s, err := n.parseSharing(j.Sharing)
	if err != nil {
		return pending[S]{}, fmt.Errorf("%w: %w", errPending, err)
	}
	if len(j.Files) != len(s.Holders()) {
		return pending[S]{}, fmt.Errorf("%w: %d files for %d shares", errPending, len(j.Files), len(s.Holders()))
	}
	for i, f := range j.Files {
		// What it names is wiped one day.
		if !filepath.IsAbs(f.Path) || filepath.Base(f.Path) != s.FileName(i+1) {
			return pending[S]{}, fmt.Errorf("%w: %.80q is no file of share %d", errPending, f.Path, i+1)
		}
	}
	return pending[S]{s, j.Files}, nil
}

// read reads the note; there is none is fs.ErrNotExist.
func (n note[S]) read(c Config) (pending[S], error) {
	path := c.path(n.file)
	data, err := keyfile.Read(path, maxSmallFile)
	if err != nil {
		return pending[S]{}, err
	}
	p, err := n.parse(data)
	if err != nil {
		return p, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// drop wipes the share files of a run that was cut before its sharing counted.
func (n note[S]) drop(c Config) error {
	pending, err := n.read(c)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, path := range pending.left() {
		if err := c.Files.Wipe(path); err != nil {
			return err
		}
	}
	// One that was being written has another name still.
	if err := c.Files.Sweep(filepath.Dir(pending.files[0].Path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return c.Files.RemoveDurable(c.path(n.file))
}

// left returns the files of the note that are there, byte for byte.
func (p pending[S]) left() []string {
	var paths []string
	for _, f := range p.files {
		data, err := keyfile.Read(f.Path, custody.MaxShareFile)
		if err == nil && Hash(sha256.Sum256(data)) == f.SHA256 {
			paths = append(paths, f.Path)
		}
	}
	return paths
}
