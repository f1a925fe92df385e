package pkgoffline

import (
	"fmt"
	"slices"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// succession checks an epoch statement. With parameters at hand it must lead
// from them, or from an epoch of the ledger, to the next.
func (v *verifier) succession(path string) error {
	data, err := keyfile.Read(path, bundle.MaxSuccession)
	if err != nil {
		return err
	}
	from, s, err := bundle.ParseSuccession(data)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if known := v.known(); len(known) > 0 {
		if !slices.ContainsFunc(known, from.Equal) {
			return fmt.Errorf("%s is %w: it is signed under params_id %x", path, bundle.ErrParams, from.ID())
		}
		if v.ledger != nil && !slices.ContainsFunc(known, s.Params.Equal) {
			return fmt.Errorf("%s: %w: the ledger records no epoch with params_id %x", path, bundle.ErrParams, s.Params.ID())
		}
	}
	v.done = append(v.done, verified{"epoch", path, bundle.Hash(s.Params.ID()).String(), 1, ""})
	return nil
}

// known returns the parameters that a path may be of, the present ones last;
// none: whatever it says itself.
func (v *verifier) known() []*ibc.Params {
	switch {
	case v.ledger != nil:
		return v.ledger.Epochs()
	case v.params != nil:
		return []*ibc.Params{v.params}
	}
	return nil
}

// paramsOf returns the parameters to check something with that claims to be
// of others: those of an epoch, or else the present ones, which it then is not of.
func (v *verifier) paramsOf(claimed *ibc.Params) *ibc.Params {
	known := v.known()
	switch {
	case len(known) == 0:
		return claimed
	case slices.ContainsFunc(known, claimed.Equal):
		return claimed
	}
	return known[len(known)-1]
}

// isSuccession reports whether a file may be an epoch statement.
func isSuccession(path string) bool {
	data, err := keyfile.Read(path, bundle.MaxSuccession)
	return err == nil && bundle.IsSuccession(data)
}
