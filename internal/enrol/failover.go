package enrol

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/edgeclm/edgeclm/internal/fleet"
)

// Failover enrols each device at the first of several CAs that may be asked.
// Its fields are set once; it is safe for concurrent use on different devices.
type Failover struct {
	// Runners are one for each CA, in order, at least one. They share their
	// store, Sightings and Health. A CA after the first is for the devices
	// whose last sighting lists its anchor.
	Runners []*Runner
	// Share is the part of a certificate's lifetime, at its end, in which a
	// device does not wait for the CA at which its enrolment is open.
	Share float64
}

// Run is Runner.Run at the CA that is the device's at the moment.
func (f *Failover) Run(ctx context.Context, device string, force bool) Result {
	runner, err := f.choose(ctx, device)
	if err != nil {
		return Result{Device: device, Outcome: OutcomeFailed, Err: &Fault{By: PartyCLM, Class: ClassInternal, Transient: true, Err: err}}
	}
	return runner.Run(ctx, device, force)
}

func (f *Failover) choose(ctx context.Context, device string) (*Runner, error) {
	first := f.Runners[0]
	open, err := first.Store.OpenEnrolment(ctx, device)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("load enrolment of %s: %w", device, err)
	}
	d, err := first.Store.Device(ctx, device)
	if err != nil {
		return nil, fmt.Errorf("load device %s: %w", device, err)
	}
	// What is open goes on where it is, unless that would be too late.
	if owner := f.owner(open); owner != nil {
		allows, until, err := owner.allows(ctx)
		if err != nil {
			return nil, err
		}
		if allows || !open.beforeCA() || !f.urgent(d, owner.Now(), until) {
			return owner, nil
		}
	}
	for i, r := range f.Runners {
		allows, _, err := r.allows(ctx)
		if err != nil {
			return nil, err
		}
		if !allows {
			continue
		}
		if i > 0 {
			if trusts, err := r.trustedBy(ctx, d); err != nil {
				return nil, err
			} else if !trusts {
				continue
			}
		}
		return r, nil
	}
	// Nobody may be asked: what is open is kept, and the first says so.
	if owner := f.owner(open); owner != nil {
		return owner, nil
	}
	return first, nil
}

// owner returns the runner of an enrolment's CA; nil if there is none.
func (f *Failover) owner(open *Enrolment) *Runner {
	for _, r := range f.Runners {
		if open != nil && r.CAName == open.CA {
			return r
		}
	}
	return nil
}

// beforeCA reports whether the CA has yet to issue the certificate.
func (e *Enrolment) beforeCA() bool {
	return e.State == Requested || e.State == CSRReceived || e.State == Submitted
}

// urgent reports whether a device's certificate ends, or nearly does, before
// its CA is tried again.
func (f *Failover) urgent(d fleet.Device, now, until time.Time) bool {
	if d.State(now) == fleet.NotOperational {
		return true
	}
	c := d.Certificate
	spare := time.Duration(f.Share * float64(c.NotAfter.Sub(c.NotBefore)))
	return !c.NotAfter.After(until) || c.NotAfter.Sub(now) <= spare
}

// allows asks the breaker of the runner's CA.
func (r *Runner) allows(ctx context.Context) (ok bool, until time.Time, err error) {
	if r.Health == nil {
		return true, time.Time{}, nil
	}
	b, err := r.Health.Breaker(ctx, r.CAName)
	if err != nil {
		return false, time.Time{}, fmt.Errorf("read the breaker of CA %s: %w", r.CAName, err)
	}
	ok, until, _ = b.Allows(r.Now())
	return ok, until, nil
}

// trustedBy reports whether a device lists the CA's anchor, as it said last.
func (r *Runner) trustedBy(ctx context.Context, d fleet.Device) (bool, error) {
	if r.Sightings == nil {
		return false, nil
	}
	seen, err := r.Sightings.LastSighting(ctx, d.Name)
	if err != nil {
		return false, fmt.Errorf("look up the trust anchors of %s: %w", d.Name, err)
	}
	return seen.Of(d) && seen.Lists(sha256.Sum256(r.CA.Anchor())), nil
}
