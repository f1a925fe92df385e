package enrol

import (
	"context"
	"errors"
	"fmt"

	"github.com/edgeclm/edgeclm/internal/fleet"
)

// Rollback is what became of an operator's wish that a device goes back to
// its previous certificate.
type Rollback struct {
	From    DeviceCertificate // what was active
	Device  fleet.Device      // the row afterwards, with what is active now
	Already bool              // the device had gone back before it was asked
}

// ErrNothingActive says that the device uses no certificate that it could go
// back from, or none that is on record.
var ErrNothingActive = errors.New("no certificate on record is active on the device")

// Rollback asks a device to restore the pair that was active before the
// present one, and lets the inventory follow. The device is asked first what
// it has: one that has gone back already is not sent back further. The pair
// that was given up stays staged; an open enrolment goes back to verified, and
// its next try activates it again. Errors wrap ErrLeased, ErrNotFound,
// ErrDecommissioned, ErrNothingActive, ErrUnreachable, ErrIdentity or a *DeviceError (conflict:
// there is no previous pair).
func (r *Runner) Rollback(ctx context.Context, device string) (Rollback, error) {
	release, err := r.Store.Lease(ctx, device)
	if err != nil {
		return Rollback{}, err
	}
	defer release()
	s, err := r.resumeForRollback(ctx, device)
	if err != nil {
		return Rollback{}, err
	}
	defer s.hangUp()
	before := s.d
	status, err := s.readStatus(ctx)
	if err != nil {
		return Rollback{}, fmt.Errorf("ask what the device has: %w", err)
	}
	result := Rollback{Already: before.Certificate != nil && !sameCertificate(before, s.d)}
	if result.Already {
		result.From.Serial, result.From.SHA256, result.From.NotAfter = before.Certificate.Serial, before.Certificate.SHA256, before.Certificate.NotAfter
	} else {
		if status.Active == nil {
			return Rollback{}, fmt.Errorf("%s: %w", device, ErrNothingActive)
		}
		result.From = *status.Active
		if err := s.sendBack(ctx, *status.Active); err != nil {
			return Rollback{}, err
		}
	}
	if err := s.save(ctx); err != nil {
		return Rollback{}, err
	}
	result.Device = s.d
	return result, nil
}

// resumeForRollback returns a session on the device's open enrolment, or on
// the one that its certificate on record is of.
func (r *Runner) resumeForRollback(ctx context.Context, device string) (*session, error) {
	d, err := r.Store.Device(ctx, device)
	if err != nil {
		return nil, fmt.Errorf("load device %s: %w", device, err)
	}
	if !d.InService() {
		return nil, fmt.Errorf("%s: %w", device, ErrDecommissioned)
	}
	s := &session{r: r, d: d}
	s.e, err = r.Store.OpenEnrolment(ctx, device)
	if errors.Is(err, ErrNotFound) {
		if d.Certificate == nil {
			return nil, fmt.Errorf("%s: %w", device, ErrNothingActive)
		}
		s.e, err = r.Store.EnrolmentByCertificate(ctx, d.Certificate.SHA256)
	}
	if err != nil {
		return nil, fmt.Errorf("load enrolment of %s: %w", device, err)
	}
	return s, nil
}

// sendBack has the device restore what was active before, and reads back what
// is active then.
func (s *session) sendBack(ctx context.Context, active DeviceCertificate) error {
	owner, trial := s.e, s.onTrial(active.SHA256)
	if !trial {
		var err error
		if owner, err = s.r.Store.EnrolmentByCertificate(ctx, active.SHA256); errors.Is(err, ErrNotFound) || err == nil && owner.Device != s.d.Name {
			return fmt.Errorf("%s uses certificate %s: %w", s.d.Name, active.Serial, ErrNothingActive)
		} else if err != nil {
			return fmt.Errorf("look up the device's certificate: %w", err)
		}
	}
	if err := s.call(ctx, func(dev Device) error { return dev.Rollback(ctx, owner.ID, active.SHA256) }); err != nil {
		return fmt.Errorf("roll back: %w", err)
	}
	status, err := s.readStatus(ctx)
	if err != nil {
		return fmt.Errorf("read back the active certificate: %w", err)
	}
	if !trial {
		return s.follow(ctx, status)
	}
	s.e.State = Verified
	s.fact(EventRolledBack, "an operator had certificate "+active.Serial+" taken back before it was confirmed", s.r.Now())
	s.e.Tries++
	s.e.NextTry = s.r.Now().Add(s.r.Policy.retry(ClassUnconfirmed, s.e.Tries, s.d.Name, s.lifetime()))
	s.e.LastError = "rolled back by an operator"
	s.d.NextAttempt, s.d.LastError = s.e.NextTry, s.e.LastError
	return nil
}

func sameCertificate(a, b fleet.Device) bool {
	if a.Certificate == nil || b.Certificate == nil {
		return a.Certificate == b.Certificate
	}
	return a.Certificate.SHA256 == b.Certificate.SHA256
}
