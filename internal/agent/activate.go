package agent

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// maxConfirmWithin bounds the time that a CLM may take to confirm.
const maxConfirmWithin = 7 * 24 * time.Hour

// Activate makes the staged pair of an enrolment the active one and runs the
// reload hook. If the hook fails, the previous pair is active again, the hook
// is run for it, and the refusal is enrol.ProblemRolledBack. Unless confirmed
// within that time of uptime, or by the third start of the agent, the previous
// pair is restored; 0 is final at once, and so is a pair without predecessor.
func (a *Agent) Activate(ctx context.Context, peer ibc.Identity, id enrol.ID, certificate [32]byte, confirmWithin time.Duration) error {
	if confirmWithin < 0 || confirmWithin > maxConfirmWithin {
		return refuse(enrol.ProblemBadRequest, "the time to confirm is not from 0 to %v", maxConfirmWithin)
	}
	return a.serve(ctx, peer, func(st state) error {
		switch {
		case st.Active.holds(id, certificate):
			return a.settle(ctx, st)
		case st.Pending.is(id):
			if err := a.mayClaim(st, peer); err != nil {
				return err
			}
			if !st.Pending.holds(id, certificate) {
				return refuse(enrol.ProblemConflict, "that certificate is not the verified one of enrolment %s", id)
			}
			if err := a.stillTrusted(st); err != nil {
				return err
			}
			if err := a.settle(ctx, st); err != nil {
				return err
			}
			return a.switchOver(ctx, a.current(), confirmWithin)
		}
		return notActive(st, id)
	})
}

// Confirm makes the active certificate final and, if the device has no trust
// anchor yet, pins the enrolment's CA.
func (a *Agent) Confirm(ctx context.Context, peer ibc.Identity, id enrol.ID, certificate [32]byte) error {
	return a.serve(ctx, peer, func(st state) error {
		if !st.Active.holds(id, certificate) {
			return notActive(st, id)
		}
		if err := a.settle(ctx, st); err != nil {
			return err
		}
		st = a.current()
		if st.Trial == nil {
			return nil
		}
		st, err := a.final(st)
		if err != nil {
			return err
		}
		if err := a.commit(st); err != nil {
			return err
		}
		a.disarm()
		return nil
	})
}

// Rollback restores the previous pair; the active one goes back to staged.
func (a *Agent) Rollback(ctx context.Context, peer ibc.Identity, id enrol.ID, certificate [32]byte) error {
	return a.serve(ctx, peer, func(st state) error {
		switch {
		case st.Pending.holds(id, certificate) && st.Pending.RolledBack:
			return a.settle(ctx, st)
		case !st.Active.holds(id, certificate):
			return notActive(st, id)
		case st.fallback() == nil:
			return refuse(enrol.ProblemConflict, "there is no previous pair")
		}
		return a.rollBack(ctx, st, "rolled back by "+peer.Name)
	})
}

// notActive refuses what only the active certificate is good for.
func notActive(st state, id enrol.ID) error {
	for _, p := range st.pairs() {
		if p.is(id) {
			return refuse(enrol.ProblemConflict, "that certificate of enrolment %s is not the active one", id)
		}
	}
	return refuse(enrol.ProblemUnknown, "enrolment %s is not known here", id)
}

// switchOver makes the staged pair the active one.
func (a *Agent) switchOver(ctx context.Context, st state, confirmWithin time.Duration) error {
	next := *st.Pending
	next.RolledBack = false
	if st.Active != nil && st.Active.leaf != nil { // a damaged one is none to go back to
		st.Previous = st.Active
	}
	st.Pending, st.Active, st.Phase, st.Trial = nil, &next, activating, nil
	if confirmWithin > 0 {
		st.Trial = &trial{ConfirmWithin: confirmWithin}
	}
	if a.cfg.Reload == nil {
		// Nothing can fail after the switch: one commit does for both.
		var err error
		if st, err = a.inUse(st); err != nil {
			return err
		}
	}
	if err := a.commit(st); err != nil {
		return err
	}
	a.disarm()
	if st.Phase == settled {
		a.armTrial(st)
		return nil
	}
	return a.settle(ctx, st)
}

// settle does what is left of a switch; that is also how it is resumed after a
// crash.
func (a *Agent) settle(ctx context.Context, st state) error {
	if st.Phase == settled {
		return nil
	}
	if _, err := a.dir.expose(st); err != nil {
		return fmt.Errorf("expose the active pair: %w", err)
	}
	failure := a.reload(ctx, st)
	if st.Phase == restoring {
		st.Phase = settled
		if failure != nil {
			a.cfg.Log.Error("the services did not take the pair that is active again", "error", failure)
			st.LastError = addError(st.LastError, failure.Error())
		}
		return a.commit(st)
	}
	if failure != nil {
		reason := failure.Error()
		if err := a.rollBack(ctx, st, reason); err != nil {
			return err
		}
		return refuse(enrol.ProblemRolledBack, "%s", reason)
	}
	st, err := a.inUse(st)
	if err != nil {
		return err
	}
	if err := a.commit(st); err != nil {
		return err
	}
	a.armTrial(st)
	return nil
}

// inUse returns the state with the active pair used by the device's services.
func (a *Agent) inUse(st state) (state, error) {
	active := *st.Active
	active.Request = nil
	st.Active, st.Phase, st.LastError, st.GivenUp = &active, settled, "", nil
	if st.Trial == nil {
		return a.final(st)
	}
	return st, nil
}

// final returns the state with the active pair confirmed.
func (a *Agent) final(st state) (state, error) {
	st.Trial = nil
	if len(a.anchors(st)) > 0 {
		return st, nil
	}
	ca, err := a.dir.readCertificate(st.Active.id(), caName)
	if err != nil {
		return st, fmt.Errorf("pin the trust anchor: %w", err)
	}
	st.Anchors = [][]byte{ca.Raw}
	return st, nil
}

// rollBack restores the previous pair, or none if there is none. The one that
// was active is staged again, unless another enrolment has the slot.
func (a *Agent) rollBack(ctx context.Context, st state, reason string) error {
	st.GivenUp = nil
	if st.Active.leaf != nil {
		sum := sha256.Sum256(st.Active.leaf.Raw)
		st.GivenUp = sum[:]
	}
	if st.Pending == nil {
		rolled := *st.Active
		rolled.RolledBack = true
		st.Pending = &rolled
	}
	st.Active, st.Previous, st.Trial, st.Phase = st.fallback(), nil, nil, restoring
	if st.Active == nil {
		st.Phase = settled
	}
	st.LastError = clip(reason)
	if err := a.commit(st); err != nil {
		return fmt.Errorf("roll back: %w", err)
	}
	a.disarm()
	a.heard = time.Now()
	a.cfg.Log.Warn("the previous certificate is active again", "reason", reason)
	if st.Active == nil {
		return a.withdraw()
	}
	return a.settle(ctx, st)
}

// withdraw takes away what services have, when there is no active pair.
func (a *Agent) withdraw() error {
	if a.cfg.Withdraw == nil {
		return nil
	}
	if err := a.cfg.Withdraw(); err != nil {
		return fmt.Errorf("withdraw the pair: %w", err)
	}
	return nil
}

// addError adds what went wrong to the last error, once.
func addError(last, more string) string {
	switch {
	case last == "":
		return clip(more)
	case strings.Contains(last, more):
		return last
	}
	return clip(last + "; then: " + more)
}

func (a *Agent) reload(ctx context.Context, st state) error {
	if a.cfg.Reload == nil {
		return nil
	}
	// The hook goes on if the CLM hangs up: half a reload helps nobody.
	return a.cfg.Reload(context.WithoutCancel(ctx), a.paths(st))
}

// retryInterval is the wait after a write failed without anybody to tell.
const retryInterval = time.Minute

// arm lets the timer ring after some uptime.
func (a *Agent) arm(after time.Duration) {
	a.disarm()
	alarm := a.alarm
	a.timer = time.AfterFunc(after, func() { a.ring(alarm) })
}

// armTrial starts the time in which an active pair has to be confirmed.
func (a *Agent) armTrial(st state) {
	if st.onTrial() {
		a.arm(st.Trial.ConfirmWithin)
	}
}

func (a *Agent) disarm() {
	a.alarm++
	if a.timer != nil {
		a.timer.Stop()
	}
}

// ring is the timer: the active pair was not confirmed in time, or a write is
// to be tried again.
func (a *Agent) ring(alarm int) {
	a.take()
	defer a.release()
	if a.closed || alarm != a.alarm {
		return
	}
	ctx := context.Background()
	st := a.current()
	var err error
	if st.Phase == settled && st.onTrial() {
		err = a.rollBack(ctx, st, fmt.Sprintf("not confirmed within %v", st.Trial.ConfirmWithin))
	} else {
		err = a.settle(ctx, st)
	}
	var refusal *enrol.DeviceError
	if err != nil && !errors.As(err, &refusal) {
		a.cfg.Log.Error("roll back", "error", err)
		a.arm(retryInterval)
	}
}

// keepUp is what a start does about a switch that is not final.
func (a *Agent) keepUp(ctx context.Context) error {
	st := a.current()
	switch {
	case st.onTrial() && st.Trial.Starts >= maxStarts && !a.cfg.Again:
		return a.rollBack(ctx, st, fmt.Sprintf("not confirmed by the start number %d", maxStarts))
	case st.Phase == settled && st.Active == nil:
		return a.withdraw()
	case st.Phase == settled && a.stale(st):
		st.Phase = restoring
		if err := a.commit(st); err != nil {
			return err
		}
	}
	if st.Phase != settled {
		if err := a.settle(ctx, st); err != nil {
			return err
		}
	}
	a.armTrial(a.current())
	return nil
}

// stale reports whether services lack the active pair though nothing was
// switched: they are new, or what they had is gone.
func (a *Agent) stale(st state) bool {
	return st.Active != nil && st.Active.leaf != nil && a.cfg.Stale != nil && a.cfg.Stale(a.paths(st))
}
