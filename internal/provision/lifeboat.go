package provision

import (
	"errors"
	"fmt"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/lifeboat"
)

// Heed checks a lifeboat statement as far as it is the same for everybody: its
// serial number is above that of the last one, and the recovery key that the
// first bundle, or the last statement, has fixed signed it. The cheap checks
// come first. again says that it is the one that was taken last.
//
// Errors wrap lifeboat.ErrSerial, ErrRecoveryKey, ErrSignature or ErrFormat.
func (e *Endpoint) Heed(s *lifeboat.Signed) (statement lifeboat.Statement, again bool, err error) {
	if again, err = s.Follows(e.Lifeboat); again || err != nil {
		return lifeboat.Statement{}, again, err
	}
	statement, err = s.Verify(e.RecoveryHash)
	return statement, false, err
}

// Reroot returns what the endpoint is after a statement that Heed returned, with
// the bundle of the PKG that it names: the same role and name, under another
// root of trust. Nothing of the old root is left, whatever its order: no
// identity, floor, peer, predecessor, parameters or trust anchor.
//
// Errors wrap ErrOther or bundle.ErrParams.
func (e *Endpoint) Reroot(statement lifeboat.Statement, b *bundle.Bundle) (*Endpoint, error) {
	if b.Identity.Role != e.Identity.Role || b.Identity.Name != e.Identity.Name {
		return nil, fmt.Errorf("the bundle is %w: %s, this is %s", ErrOther, b.Identity, e.Identity)
	}
	if !b.Params.Equal(statement.Params) {
		// The new PKG may have begun another epoch since.
		if err := statement.Params.Follow(b.Epochs, b.Params); err != nil {
			return nil, fmt.Errorf("bundle of %s is %w than the lifeboat's: %w", b.Identity, bundle.ErrParams, err)
		}
	}
	if b.RecoveryHash != statement.Recovery {
		return nil, fmt.Errorf("bundle of %s is %w: it names another recovery key than the lifeboat", b.Identity, bundle.ErrParams)
	}
	accepted, err := statement.Accepted()
	if err != nil {
		return nil, err
	}
	next := *b
	next.Epochs = nil
	return &Endpoint{Bundle: &next, Root: statement.Params.ID(), Lifeboat: accepted}, nil
}

// InstallLifeboat keeps the content of a bundle that a lifeboat brings, as Heed
// and Reroot say; one that was taken already, as Install does. The caller keeps
// other processes off the directory.
//
// An endpoint without identity takes the bundle as its first one, which the caller
// trusts, and remembers the lifeboat for those to whom it brings it.
//
// Errors are theirs.
func (s Store) InstallLifeboat(signed *lifeboat.Signed, b *bundle.Bundle) (changed bool, err error) {
	if b.Identity.Role != s.Role {
		return false, fmt.Errorf("the bundle is %w: %s", ErrOther, b.Identity)
	}
	present, err := s.Load()
	switch {
	case errors.Is(err, ErrNone):
		claimed, err := signed.KeyHash()
		if err != nil {
			return false, err
		}
		present = &Endpoint{Bundle: &bundle.Bundle{Identity: b.Identity, RecoveryHash: claimed}}
	case err != nil:
		return false, err
	default:
		defer present.Key.Destroy()
	}
	statement, again, err := present.Heed(signed)
	if err != nil {
		return false, err
	}
	if again {
		return s.Install(b)
	}
	next, err := present.Reroot(statement, b)
	if err != nil {
		return false, err
	}
	return true, s.Save(next)
}
