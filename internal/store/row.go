package store

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Row is what the PKG's manifest says about one device.
type Row struct {
	Identity    ibc.Identity // of role dev
	PublicKey   []byte       // of Identity, as the manifest has it; nil: not at hand
	Address     string       // host:port, or ""
	Labels      map[string]string
	Names       []fleet.Name
	LedgerIndex uint64 // of the ledger's entry that records the issue
	Sealed      []byte // the bundle of Identity, for a device that has an earlier one; nil: not at hand
}

// Validate reports, as an error that wraps ErrInvalid, what is wrong with a
// row.
func (r Row) Validate() error {
	if err := r.Identity.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if r.Identity.Role != ibc.RoleDevice {
		return fmt.Errorf("%w: %s is no device", ErrInvalid, r.Identity)
	}
	if n := len(r.PublicKey); n != 0 && n != ibc.PublicKeySize {
		return fmt.Errorf("%w: the public key of %s has %d bytes", ErrInvalid, r.Identity.Name, n)
	}
	if r.LedgerIndex > math.MaxInt64 {
		return fmt.Errorf("%w: the ledger index %d of %s", ErrInvalid, r.LedgerIndex, r.Identity.Name)
	}
	if err := fleet.ValidateLabels(r.Labels); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrInvalid, r.Identity.Name, err)
	}
	return nil
}

// Outcome says what became of a row.
type Outcome int

// The outcomes, in the order of how much they did.
const (
	Skipped   Outcome = iota - 1 // an earlier (epoch, generation)
	Unchanged                    // nothing that anybody sees
	Updated                      // a later identity, or other labels, names or address
	Added                        // not known before
)

// Merge returns what is known about a device after next has been seen: a later
// (epoch, generation) replaces the identity, an earlier one is skipped;
// address, labels and names follow the higher ledger index. So rows may arrive
// in any order, and twice.
func (r Row) Merge(next Row) (Row, Outcome) {
	order := next.Identity.Compare(r.Identity)
	if order < 0 {
		return r, Skipped
	}
	merged, changed := r, order > 0
	merged.Identity = next.Identity
	if next.LedgerIndex > r.LedgerIndex {
		merged = next
		merged.Sealed, merged.PublicKey = nil, nil
		changed = changed || next.Address != r.Address || !maps.Equal(next.Labels, r.Labels) || !slices.Equal(next.Names, r.Names)
	}
	if changed {
		return merged, Updated
	}
	return merged, Unchanged
}
