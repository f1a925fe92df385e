package pkgen

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/hashlog"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// AnchorRequest asks for an anchor statement.
type AnchorRequest struct {
	Medium  string         // the directory to write to; made if need be
	Pattern bundle.Pattern // of the names of the devices that it is for
	Anchors [][]byte       // DER certificates: the whole set
	Lab     bool           // the machine is not air-gapped: recorded in the ledger
}

// Stated is what a run of Anchor left on the medium.
type Stated struct {
	Set     bundle.AnchorSet
	Payload Hash   // of the signed payload
	File    string // its path
	Index   uint64 // of the ledger entry
	Ledger  bundle.LedgerHead
}

// Anchor states the trust anchors of some devices: it records the statement in
// the ledger, under the next serial number, and writes it to the medium, in
// this order. What the ledger's latest statement says already keeps its serial
// number: that is how an interrupted run is completed.
func (p *PKG) Anchor(r AnchorRequest) (*Stated, error) {
	last, _ := p.Ledger.LatestAnchor()
	s := &Stated{Set: bundle.AnchorSet{Serial: max(last.Serial, 1), Pattern: r.Pattern, Anchors: r.Anchors}}
	said, err := p.says(s)
	if err != nil {
		return nil, err
	}
	if last.Serial > 0 && said != *last.Payload {
		s.Set.Serial++
	}
	data, err := p.state(s)
	if err != nil {
		return nil, err
	}
	s.File = filepath.Join(r.Medium, bundle.AnchorFileName(s.Set.Serial))
	if err := p.mayReplace(s); err != nil {
		return nil, err
	}
	if s.Set.Serial > last.Serial {
		fact := Fact{Type: typeAnchor, Lab: r.Lab, Payload: &s.Payload, Serial: s.Set.Serial, Pattern: r.Pattern, Anchors: bundle.AnchorHashes(r.Anchors)}
		if err := p.record([]Fact{fact}); err != nil {
			return nil, err
		}
	}
	recorded, _ := p.Ledger.LatestAnchor()
	s.Index, s.Ledger = recorded.Index, p.Ledger.Head()
	if err := p.Files.EnsureDirPerm(r.Medium, mediumDirPerm); err != nil {
		return nil, err
	}
	if err := sweep(p.Files, r.Medium); err != nil {
		return nil, err
	}
	if err := p.Files.WriteDurable(s.File, data, keyfile.PublicPerm); err != nil {
		return nil, err
	}
	return s, p.Files.ReadBack(s.File, data)
}

// says returns the hash of what a set says, which is not signed yet: nothing is
// signed that shall not be used.
func (p *PKG) says(s *Stated) (Hash, error) {
	s.Set.ParamsID, s.Set.Epoch = p.Params().ID(), p.Params().Epoch()
	payload, err := s.Set.Payload()
	if errors.Is(err, bundle.ErrFormat) {
		err = fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return sha256.Sum256(payload), err
}

// state signs a set.
func (p *PKG) state(s *Stated) (data []byte, err error) {
	data, s.Payload, err = s.Set.Marshal(p.Params(), p.authority)
	return data, err
}

// mayReplace refuses to write over a file that is not this statement.
func (p *PKG) mayReplace(s *Stated) error {
	present, err := keyfile.Read(s.File, bundle.MaxAnchorFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, payload, err := bundle.ParseAnchors(present, p.Params()); err != nil || payload != s.Payload {
		return fmt.Errorf("%s exists and is %w", s.File, errors.Join(ErrForeign, err))
	}
	return nil
}

// checkAnchor applies the rules of statements: serial numbers rise.
func (l *Ledger) checkAnchor(f Fact) error {
	if f.Payload == nil {
		return fmt.Errorf("%w: an anchor entry without payload", hashlog.ErrFormat)
	}
	if last, _ := l.LatestAnchor(); f.Serial <= last.Serial {
		return fmt.Errorf("%w: statement %d follows statement %d (entry %d)", hashlog.ErrFormat, f.Serial, last.Serial, last.Index)
	}
	return nil
}

// LatestAnchor returns the entry of the latest anchor statement.
func (l *Ledger) LatestAnchor() (Entry, bool) {
	if l.anchor == 0 {
		return Entry{}, false
	}
	return l.Entries[l.anchor-1], true
}

// VerifyAnchors checks the file of an anchor statement: its signature and, with
// a ledger (nil: none at hand), that the ledger records it.
func VerifyAnchors(path string, params *ibc.Params, ledger *Ledger) (*bundle.AnchorSet, error) {
	data, err := keyfile.Read(path, bundle.MaxAnchorFile)
	if err != nil {
		return nil, err
	}
	set, payload, err := bundle.ParseAnchors(data, params)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if ledger == nil {
		return set, nil
	}
	for _, e := range ledger.Entries {
		if e.Type == typeAnchor && e.Serial == set.Serial && *e.Payload == payload {
			return set, nil
		}
	}
	return nil, fmt.Errorf("%s: %w: the ledger does not record the statement %d", path, ErrMedium, set.Serial)
}
