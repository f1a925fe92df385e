package pkgen

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// A file of a medium that was being replaced when the power failed can be gone:
// some drivers remove the old one before they rename the new one. The new one
// lies beside it under its temporary name then.

// completion is a temporary file that becomes what it was written for.
type completion struct{ temp, path string }

// manifestOf reads the manifest of a medium, or the one that was about to be. It
// returns nil if there is none.
func (m *medium) manifestOf(known []*ibc.Params) (*bundle.Manifest, error) {
	file := m.path(bundle.ManifestName)
	manifest, err := readManifest(file, known)
	if !errors.Is(err, fs.ErrNotExist) {
		return manifest, err
	}
	temps, err := keyfile.Interrupted(file)
	if err != nil {
		return nil, err
	}
	var best *bundle.Manifest
	var from string
	for _, temp := range temps {
		// What is torn does not verify, and is nobody's loss.
		if x, err := readManifest(temp, known); err == nil && (best == nil || x.Ledger.Index > best.Ledger.Index) {
			best, from = x, temp
		}
	}
	if best != nil {
		m.completions = append(m.completions, completion{from, file})
	}
	return best, nil
}

// sumsOf reads the hashes beside a manifest, or those that were about to be.
func (m *medium) sumsOf() (bundle.Sums, error) {
	file := m.path(bundle.SumsName)
	sums, err := readSums(file)
	if err != nil || sums != nil {
		return sums, err
	}
	temps, err := keyfile.Interrupted(file)
	if err != nil {
		return nil, err
	}
	var best bundle.Sums
	var from string
	for _, temp := range temps {
		if x, err := readSums(temp); err == nil && len(x) > len(best) {
			best, from = x, temp
		}
	}
	if best != nil {
		m.completions = append(m.completions, completion{from, file})
	}
	return best, nil
}

// complete gives files that are gone their content, before the temporary files
// are swept.
func (m *medium) complete() error {
	for _, c := range m.completions {
		if err := m.files.Complete(c.temp, c.path); err != nil {
			return err
		}
	}
	m.completions = nil
	return nil
}

// sweep removes what interrupted writes left on a medium, unless its manifest is
// gone and may be among them: that is for the next issue to see.
func sweep(files keyfile.Files, medium string) error {
	file := filepath.Join(medium, bundle.ManifestName)
	if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
		if temps, err := keyfile.Interrupted(file); err != nil || len(temps) > 0 {
			return err
		}
	}
	return files.Sweep(medium)
}
