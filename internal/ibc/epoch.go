package ibc

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrSuccession is wrapped when no chain of epoch statements leads from the
// parameters that are trusted to those that are claimed.
var ErrSuccession = errors.New("no epoch statement leads to the parameters")

// Succession is a PKG's statement (KindEpoch) that the parameters of a later
// epoch follow those of an earlier one. Its master secret signed it.
type Succession struct {
	Params    *Params // of the later epoch
	Statement []byte  // of the earlier one over EpochDocument, StatementSize bytes
}

// EpochDocument is what the statement of a succession signs: LP(suite, epoch as
// 4 bytes big-endian, Ppub) of the later epoch.
func EpochDocument(next *Params) ([]byte, error) {
	return LP([]byte(Suite), binary.BigEndian.AppendUint32(nil, next.epoch), next.raw[:])
}

// Succeed states that the parameters of a later epoch follow these. Errors wrap
// ErrEpoch: a later epoch has a higher number, and a master secret of its own.
func (m *MasterSecret) Succeed(next *Params) (Succession, error) {
	if err := m.params.precedes(next); err != nil {
		return Succession{}, err
	}
	document, err := EpochDocument(next)
	if err != nil {
		return Succession{}, err
	}
	statement, err := m.Sign(KindEpoch, document)
	return Succession{Params: next, Statement: statement}, err
}

func (p *Params) precedes(next *Params) error {
	if next.epoch <= p.epoch || next.id == p.id {
		return fmt.Errorf("%w: epoch %d with parameters %x does not follow epoch %d with parameters %x",
			ErrEpoch, next.epoch, next.id[:8], p.epoch, p.id[:8])
	}
	return nil
}

// Equal reports whether both are the same parameters of the same epoch.
func (p *Params) Equal(other *Params) bool { return p.epoch == other.epoch && p.raw == other.raw }

// Follow checks that a chain of statements leads from p, which is trusted, to
// the parameters of a later epoch. The chain is in order, epochs may be left
// out, and what it says about epochs up to p's is skipped: one chain serves
// endpoints of several epochs. Errors wrap ErrSuccession, and what else was
// wrong with a statement. The cost is a product of two pairings for each.
func (p *Params) Follow(chain []Succession, to *Params) error {
	at := p
	for _, s := range chain {
		if at.Equal(to) {
			return nil
		}
		if s.Params.epoch <= at.epoch {
			continue
		}
		if err := at.verifySuccession(s); err != nil {
			return fmt.Errorf("%w: epoch %d: %w", ErrSuccession, s.Params.epoch, err)
		}
		at = s.Params
	}
	if !at.Equal(to) {
		return fmt.Errorf("%w: epoch %d with parameters %x, from epoch %d with parameters %x",
			ErrSuccession, to.epoch, to.id[:8], p.epoch, p.id[:8])
	}
	return nil
}

func (p *Params) verifySuccession(s Succession) error {
	if err := p.precedes(s.Params); err != nil {
		return err
	}
	document, err := EpochDocument(s.Params)
	if err != nil {
		return err
	}
	return p.VerifyStatement(KindEpoch, document, s.Statement)
}
