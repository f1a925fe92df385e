package pkgen

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/hashlog"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// Sharing returns the entry of the sharing in force, if the master secret is in
// shares.
func (l *Ledger) Sharing() (Entry, bool) {
	if l.sharing == 0 {
		return Entry{}, false
	}
	return l.Entries[l.sharing-1], true
}

// checkShares applies the rules of sharings: each names the one before, under
// the next serial number; only a share of the one in force is made again.
func (l *Ledger) checkShares(f Fact) error {
	last, shared := l.Sharing()
	switch {
	case f.Sharing == nil:
		return fmt.Errorf("%w: a shares entry without sharing", hashlog.ErrFormat)
	case f.Recovered != 0 && (!shared || *f.Sharing != *last.Sharing || f.Recovered < 1 || f.Recovered > len(last.Holders)):
		return fmt.Errorf("%w: share %d was made again, of a sharing that is not in force", hashlog.ErrFormat, f.Recovered)
	case f.Recovered != 0:
		return nil
	case shared != (f.Previous != nil) || shared && *f.Previous != *last.Sharing || f.Serial != last.Serial+1:
		return fmt.Errorf("%w: sharing %d does not follow the one before", hashlog.ErrFormat, f.Serial)
	}
	if err := custody.CheckOptions(f.Threshold, f.Holders); err != nil {
		return fmt.Errorf("%w: %w", hashlog.ErrFormat, err)
	}
	return nil
}

// sharingFact is what the ledger records of a sharing that follows last (zero:
// none).
func sharingFact(kind string, s *custody.Sharing, last Entry) Fact {
	id := s.ID()
	return Fact{Type: kind, Sharing: &id, Previous: last.Sharing, Serial: s.Serial(), Threshold: s.Threshold(), Holders: s.Holders()}
}

// ReadSharing returns the sharing in force of a PKG's directory, whose ledger
// was read. It needs no secret. Errors wrap ErrWhole or ErrForeign.
func ReadSharing(dir string, ledger *Ledger) (*custody.Sharing, error) {
	s, _, err := Config{Dir: dir}.sharing(ledger)
	return s, err
}

// ReadSharingFile reads the description of a sharing, as a holder keeps a copy
// of it.
func ReadSharingFile(path string) (*custody.Sharing, error) {
	data, err := keyfile.Read(path, custody.MaxSharingFile)
	if err != nil {
		return nil, err
	}
	s, err := custody.ParseSharing(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// sharing returns the sharing that the ledger says is in force, and whether its
// description has to be put in its place still: the entry in the ledger is what
// makes a sharing count, and a run may have been cut behind it.
func (c Config) sharing(ledger *Ledger) (s *custody.Sharing, unsettled bool, err error) {
	entry, shared := ledger.Sharing()
	if !shared {
		return nil, false, ErrWhole
	}
	s, err = ReadSharingFile(c.path(SharesFile))
	if err == nil && s.ID() == *entry.Sharing {
		return s, false, nil
	}
	pending, pendingErr := sharesNote().read(c)
	if pendingErr == nil && pending.sharing.ID() == *entry.Sharing {
		return pending.sharing, true, nil
	}
	if err == nil {
		err = fmt.Errorf("%s: %w: it describes sharing %s, the ledger records %s (entry %d)", c.path(SharesFile), ErrForeign, s.ID(), entry.Sharing, entry.Index)
	}
	return nil, false, err
}

// openShares returns the authority of shares that were brought together.
func (c Config) openShares(ledger *Ledger, shares []*custody.Share) (authority, error) {
	s, _, err := c.sharing(ledger)
	if err != nil {
		return nil, err
	}
	for _, x := range shares {
		if x.Sharing.ID() != s.ID() {
			return nil, fmt.Errorf("%w: share %d of %s", custody.ErrSharing, x.Index(), x.Holder)
		}
	}
	master, err := custody.Together(shares)
	if err != nil {
		return nil, err
	}
	return gathered{whole{master}, shares}, nil
}

// settleSharing finishes what a run left that was cut after its sharing was
// recorded, and tells of share files that one left that was cut before.
func (p *PKG) settleSharing() error {
	s, unsettled, err := p.sharing(p.Ledger)
	if err != nil {
		return err
	}
	if unsettled {
		if err := p.describe(s); err != nil {
			return err
		}
	}
	if err := p.Files.Wipe(p.path(MasterFile)); err != nil {
		return err
	}
	pending, err := sharesNote().read(p.Config)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case pending.sharing.ID() == s.ID():
		return p.Files.RemoveDurable(p.path(pendingFile))
	}
	for _, path := range pending.left() {
		p.Warn("an interrupted run left " + path + ", a share of a sharing that was never in force: destroy it, or run shares refresh again")
	}
	return nil
}

// describe writes shares.json.
func (p *PKG) describe(s *custody.Sharing) error {
	data, err := s.Marshal()
	if err != nil {
		return err
	}
	if err := p.Files.WriteDurable(p.path(SharesFile), data, keyfile.PublicPerm); err != nil {
		return err
	}
	return keyfile.ReadBack(p.path(SharesFile), data)
}

// verifySharing checks without any secret that what the directory says of the
// shares is what the ledger says.
func (c Config) verifySharing(ledger *Ledger) error {
	s, unsettled, err := c.sharing(ledger)
	if err != nil {
		return err
	}
	entry, _ := ledger.Sharing()
	switch {
	case s.Params().ID() != ledger.Params.ID():
		return fmt.Errorf("%s: %w: it is of params_id %x", c.path(SharesFile), ErrForeign, s.Params().ID())
	case s.Threshold() != entry.Threshold || s.Serial() != entry.Serial:
		return fmt.Errorf("%s: %w: the ledger records another threshold or serial number", c.path(SharesFile), ErrForeign)
	case unsettled:
		return fmt.Errorf("%s: %w: sharing %d is recorded and its run did not end; any command that opens the PKG ends it", c.path(SharesFile), ErrForeign, s.Serial())
	}
	if _, err := keyfile.Read(c.path(MasterFile), maxSmallFile); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(fmt.Errorf("%s is there though the master secret is in shares; any command that opens the PKG wipes it", filepath.Join(c.Dir, MasterFile)), err)
	}
	return nil
}
