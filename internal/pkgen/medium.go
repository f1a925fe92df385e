package pkgen

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// perFolder is how many bundles one folder of a medium holds: FAT slows down
// with long directories.
const perFolder = 1000

// Permissions of what everybody may read.
const mediumDirPerm = 0o755

// medium is a USB stick, or any directory, with its manifest.
type medium struct {
	dir      string
	files    keyfile.Files
	manifest *bundle.Manifest
	index    map[bundle.Subject]int // of manifest.Rows
	sums     bundle.Sums            // of the files of manifest.Rows, as far as they are known
	planned  int                    // rows and jobs that will become rows
	progress *progress              // nil: the run keeps no note

	completions []completion // of files that an interrupted run took away
}

// openMedium reads the manifest of a medium, if there is one, and holds it to
// the PKG: one of another PKG, or one that knows more than the ledger, is
// refused. One of an earlier epoch becomes one of the present: its rows stay.
func openMedium(dir string, files keyfile.Files, ledger *Ledger) (*medium, error) {
	m := &medium{dir: dir, files: files, manifest: &bundle.Manifest{Params: ledger.Params}, index: map[bundle.Subject]int{}, sums: bundle.Sums{}}
	manifest, err := m.manifestOf(ledger.Epochs())
	if err != nil {
		return nil, err
	}
	if manifest == nil {
		return m, nil
	}
	if err := ledger.Covers(manifest.Ledger); err != nil {
		return nil, fmt.Errorf("ledger against %s: %w", filepath.Join(dir, bundle.ManifestName), err)
	}
	known, err := m.sumsOf()
	if err != nil {
		return nil, err
	}
	manifest.Params = ledger.Params
	m.manifest, m.planned = manifest, len(manifest.Rows)
	for i, r := range manifest.Rows {
		m.index[r.Subject()] = i
		if sum := known.Of(r); sum != (Hash{}) {
			m.sums[r.File] = sum
		}
	}
	return m, nil
}

// readSums reads the hashes beside a manifest; earlier releases wrote none.
func readSums(file string) (bundle.Sums, error) {
	data, err := keyfile.Read(file, bundle.MaxSumsSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	sums, err := bundle.ParseSums(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return sums, nil
}

// readManifest reads a manifest and verifies it under those of
// the parameters that it names.
func readManifest(file string, known []*ibc.Params) (*bundle.Manifest, error) {
	data, err := keyfile.Read(file, bundle.MaxManifestSize)
	if err != nil {
		return nil, err
	}
	manifest, err := bundle.ParseManifestOf(data, known)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return manifest, nil
}

// place decides where a job's bundle goes: the same place in every run with
// the same requests. A file that is there already must be this PKG's: listed
// in the manifest, or recorded in the ledger and not listed only because the
// run was interrupted.
func (m *medium) place(j *job, ledger *Ledger) error {
	id := j.identity
	row, listed := m.index[subject(id)]
	if !listed {
		row = m.planned
		m.planned++
	}
	if m.planned > bundle.MaxRows {
		return fmt.Errorf("%w: a medium holds at most %d identities", ErrRequest, bundle.MaxRows)
	}
	j.row, j.file = row, bundle.FileName(id)
	if folder := row / perFolder; folder > 0 {
		j.file = fmt.Sprintf("%03d/%s", folder, j.file)
	}
	if listed && m.manifest.Rows[row].File == j.file {
		return nil
	}
	if _, err := os.Lstat(m.path(j.file)); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if last, ok := ledger.Latest(subject(id)); ok && *last.Identity == id {
		return nil
	}
	return fmt.Errorf("%s exists and is %w", m.path(j.file), ErrForeign)
}

func (m *medium) path(file string) string { return filepath.Join(m.dir, filepath.FromSlash(file)) }

// prepare makes the folders of the jobs and removes what interrupted writes
// left in them.
func (m *medium) prepare(jobs []job) error {
	if err := m.complete(); err != nil {
		return err
	}
	folders := map[string]bool{".": true}
	for _, j := range jobs {
		folders[path.Dir(j.file)] = true
	}
	for folder := range folders {
		if err := m.files.EnsureDirPerm(m.path(folder), mediumDirPerm); err != nil {
			return err
		}
		if err := m.files.Sweep(m.path(folder)); err != nil {
			return err
		}
	}
	return nil
}

// write writes sealed bundles, reads them back from the medium, and notes them.
// What is not sealed is there already.
func (m *medium) write(bundles []made, sealed [][]byte) error {
	batch := m.files.NewBatch()
	var fresh []written
	for i, b := range bundles {
		if sealed[i] == nil {
			continue
		}
		if err := batch.Write(m.path(b.job.file), sealed[i], keyfile.SecretPerm); err != nil {
			return err
		}
		fresh = append(fresh, b.written)
	}
	if err := batch.Commit(); err != nil {
		return err
	}
	for i, b := range bundles {
		if sealed[i] == nil {
			continue
		}
		if err := m.files.ReadBack(m.path(b.job.file), sealed[i]); err != nil {
			return err
		}
	}
	return m.progress.note(fresh)
}

// list enters a bundle into the manifest; signed says whether its hash is known
// when the manifest is signed, and stands in it.
func (m *medium) list(b *made, signed bool) bundle.Row {
	j, sealed := b.job, b.written.SHA256
	id := j.identity
	row := bundle.Row{
		Role: id.Role, Name: id.Name, Epoch: id.Epoch, Generation: id.Generation,
		PublicKey: b.publicKey, Address: j.address, Labels: j.labels,
		Names: j.names, File: j.file, LedgerIndex: b.written.Index,
	}
	if signed {
		row.SHA256 = sealed
	}
	if row.Names == nil {
		row.Names = []fleet.Name{} // an empty list is [] in JSON
	}
	if j.row == len(m.manifest.Rows) {
		m.manifest.Rows = append(m.manifest.Rows, row)
		m.index[row.Subject()] = j.row
	} else {
		delete(m.sums, m.manifest.Rows[j.row].File)
		m.manifest.Rows[j.row] = row
	}
	m.sums[row.File] = sealed
	return row
}

// strangers returns the first bundle on the medium that its manifest does not
// list, "" if it lists all of them: an earlier manifest was lost.
func (m *medium) strangers() (string, error) {
	latest := map[bundle.Subject]ibc.Identity{}
	for _, r := range m.manifest.Rows {
		latest[r.Subject()] = r.Identity()
	}
	err := verifyNoOthers(m.dir, latest)
	switch {
	case errors.Is(err, ErrMedium):
		return err.Error(), nil
	case errors.Is(err, fs.ErrNotExist): // nothing is written in this run
		return "", nil
	}
	return "", err
}

// finish signs and writes the manifest, and the hashes of all bundles before it.
func (m *medium) finish(head bundle.LedgerHead, signer bundle.Signer) error {
	m.manifest.Ledger = head
	signed, err := m.manifest.Sign(signer)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name    string
		content io.WriterTo
	}{{bundle.SumsName, bytes.NewReader(m.sums.Marshal())}, {bundle.ManifestName, signed}} {
		file := m.path(f.name)
		written, err := m.files.ReplaceDurableFrom(file, f.content, keyfile.PublicPerm)
		if err != nil {
			return err
		}
		if err := m.files.ReadBackContent(file, written); err != nil {
			return err
		}
	}
	return nil
}
