package pkgen

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// Holder is who gets a share, and what it is sealed to.
type Holder struct {
	Name string
	To   bundle.Recipient
}

// SharesOptions say how the master secret is shared out.
type SharesOptions struct {
	Threshold int
	Holders   []Holder // of share 1 first
	Out       string   // directory of the share files; "": SharesDir in the PKG's
	Lab       bool     // the machine is not air-gapped: recorded in the ledger
}

func (o SharesOptions) names() []string {
	names := make([]string, len(o.Holders))
	for i, h := range o.Holders {
		names[i] = h.Name
	}
	return names
}

// Shared is what a run left that made shares.
type Shared struct {
	Sharing *custody.Sharing
	Files   []string // of share 1 first; of a share that was made again, alone
	Ledger  bundle.LedgerHead
}

// dealt is a sharing whose shares are sealed and not yet written.
type dealt[S described] struct {
	note    note[S]
	sharing S
	files   []shareFile
}

type shareFile struct {
	path   string
	sealed []byte
}

// deal shares a master secret out, in memory.
func (c Config) deal(m *ibc.MasterSecret, serial uint64, o SharesOptions) (*dealt[*custody.Sharing], error) {
	shares, sharing, err := custody.Deal(m, c.Random, o.Threshold, serial, o.names())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	files, err := sealShares(shares, o.Holders, c.sharesDir(o.Out), sharing)
	return &dealt[*custody.Sharing]{sharesNote(), sharing, files}, err
}

// sealShares seals each share for its holder, and destroys all of them.
func sealShares[X interface {
	Seal(bundle.Recipient) ([]byte, error)
	Destroy()
}](shares []X, holders []Holder, dir string, of described) ([]shareFile, error) {
	defer func() {
		for _, x := range shares {
			x.Destroy()
		}
	}()
	paths := sharePaths(of, dir)
	files := make([]shareFile, len(shares))
	for i, x := range shares {
		sealed, err := x.Seal(holders[i].To)
		if err != nil {
			return nil, err
		}
		files[i] = shareFile{paths[i], sealed}
	}
	return files, nil
}

func (c Config) sharesDir(out string) string {
	if out == "" {
		return c.path(SharesDir)
	}
	return out
}

func (d *dealt[S]) paths() []string {
	paths := make([]string, len(d.files))
	for i, f := range d.files {
		paths[i] = f.path
	}
	return paths
}

// write writes the share files. Before, it notes in the directory which they
// are, so that a run that follows a cut one knows those that never counted.
func (d *dealt[S]) write(c Config) error {
	if err := d.note.drop(c); err != nil {
		return err
	}
	pending := pending[S]{sharing: d.sharing}
	for _, f := range d.files {
		path, err := filepath.Abs(f.path)
		if err != nil {
			return err
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(fmt.Errorf("%s: %w", f.path, keyfile.ErrExists), err)
		}
		pending.files = append(pending.files, pendingShare{path, sha256.Sum256(f.sealed)})
	}
	if err := c.makeSharesDir(filepath.Dir(d.files[0].path)); err != nil {
		return err
	}
	data, err := pending.marshal()
	if err != nil {
		return err
	}
	if err := c.Files.WriteDurable(c.path(d.note.file), data, keyfile.SecretPerm); err != nil {
		return err
	}
	for _, f := range d.files {
		if err := c.writeShare(f); err != nil {
			return err
		}
	}
	return nil
}

func (c Config) makeSharesDir(dir string) error {
	if err := c.Files.EnsureDirPerm(dir, keyfile.DirPerm); err != nil {
		return err
	}
	return c.Files.Sweep(dir)
}

func (c Config) writeShare(f shareFile) error {
	if err := c.Files.CreateDurable(f.path, f.sealed, keyfile.SecretPerm); err != nil {
		return err
	}
	return keyfile.ReadBack(f.path, f.sealed)
}

// Reshare gives new shares of the same secret, to the same or other holders and
// with the same or another threshold. The sharing before counts no more: its
// shares fit none of the new ones; but they make the secret among themselves
// until they are destroyed. A master secret in one piece becomes shares, and its
// file is wiped.
//
// The new share files are written first, then the sharing is recorded in the
// ledger: with that it counts. Whenever the run is cut, either the old shares
// open the PKG or the new ones do, and it may be run again.
func (p *PKG) Reshare(o SharesOptions) (*Shared, error) {
	master, err := p.master()
	if err != nil {
		return nil, err
	}
	last, _ := p.Ledger.Sharing()
	d, err := p.deal(master, last.Serial+1, o)
	if err != nil {
		return nil, err
	}
	if err := d.write(p.Config); err != nil {
		return nil, err
	}
	fact := sharingFact(typeShares, d.sharing, last)
	fact.Lab = o.Lab
	if err := p.record([]Fact{fact}); err != nil {
		return nil, err
	}
	if err := p.settleSharing(); err != nil {
		return nil, err
	}
	return &Shared{d.sharing, d.paths(), p.Ledger.Head()}, nil
}

// master returns the whole secret, which only some authorities have.
func (p *PKG) master() (*ibc.MasterSecret, error) {
	switch a := p.authority.(type) {
	case whole:
		return a.MasterSecret, nil
	case gathered:
		return a.MasterSecret, nil
	}
	return nil, fmt.Errorf("%w: the master secret is not here", ErrRequest)
}

// RecoverShare makes the share of a holder again, from the others or from itself,
// and seals it anew. That is recorded in the ledger before the file is written.
func (p *PKG) RecoverShare(holder Holder, out string, lab bool) (*Shared, error) {
	g, ok := p.authority.(gathered)
	if !ok {
		return nil, ErrWhole
	}
	sharing := g.shares[0].Sharing
	index := slices.Index(sharing.Holders(), holder.Name) + 1
	if index == 0 {
		return nil, fmt.Errorf("%w: %.40q holds no share of sharing %d", ErrRequest, holder.Name, sharing.Serial())
	}
	f := shareFile{path: filepath.Join(p.sharesDir(out), sharing.FileName(index))}
	if _, err := os.Lstat(f.path); !errors.Is(err, fs.ErrNotExist) {
		return nil, errors.Join(fmt.Errorf("%s: %w", f.path, keyfile.ErrExists), err)
	}
	share, err := custody.Recover(g.shares, index)
	if err != nil {
		return nil, err
	}
	defer share.Destroy()
	if f.sealed, err = share.Seal(holder.To); err != nil {
		return nil, err
	}
	id := sharing.ID()
	if err := p.record([]Fact{{Type: typeShares, Lab: lab, Sharing: &id, Recovered: index}}); err != nil {
		return nil, err
	}
	if err := p.makeSharesDir(filepath.Dir(f.path)); err != nil {
		return nil, err
	}
	return &Shared{sharing, []string{f.path}, p.Ledger.Head()}, p.writeShare(f)
}

// ShareFiles returns where the shares of a sharing are written, that of share 1
// first; out is as in SharesOptions.
func (c Config) ShareFiles(s *custody.Sharing, out string) []string {
	return sharePaths(s, c.sharesDir(out))
}

func sharePaths(s described, dir string) []string {
	paths := make([]string, len(s.Holders()))
	for i := range paths {
		paths[i] = filepath.Join(dir, s.FileName(i+1))
	}
	return paths
}
