package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
)

// ErrNoPrevious is wrapped when there is no pair to go back to.
var ErrNoPrevious = errors.New("there is no previous certificate to go back to")

// Rolled says what a rollback by hand did.
type Rolled struct {
	GivenUp  *x509.Certificate // nil: it was unreadable
	Restored *x509.Certificate
	// Failure is why the services did not take the restored pair; nil if they
	// did. It is active all the same.
	Failure error
}

// RollbackByHand restores the previous pair, as Rollback does for a CLM. The
// pair that it restores has no predecessor, so doing it twice wraps
// ErrNoPrevious: nothing alternates between two pairs.
func (a *Agent) RollbackByHand(ctx context.Context) (Rolled, error) {
	var r Rolled
	err := a.alone(ctx, func(st state) error {
		if st.Phase != settled {
			if err := a.settle(ctx, st); err != nil {
				return err
			}
			st = a.current()
		}
		if st.Active == nil || st.fallback() == nil {
			if len(st.GivenUp) > 0 {
				return fmt.Errorf("%w: %x was given up already", ErrNoPrevious, st.GivenUp)
			}
			return ErrNoPrevious
		}
		r.GivenUp, r.Restored = st.Active.leaf, st.Previous.leaf
		const reason = "rolled back by hand"
		if err := a.rollBack(ctx, st, reason); err != nil {
			return err
		}
		if last := a.current().LastError; last != reason {
			r.Failure = errors.New(last)
		}
		return nil
	})
	return r, err
}
