package enrol

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/edgeclm/edgeclm/internal/fleet"
)

// commitGrace bounds the last commit of a run whose context has ended.
const commitGrace = 10 * time.Second

// complete ends an enrolment whose certificate is active and confirmed.
func (s *session) complete(ctx context.Context, began time.Time) error {
	leaf, err := x509.ParseCertificate(s.e.Certificate)
	if err != nil {
		return fmt.Errorf("parse the certificate in the store: %w", err)
	}
	now := s.r.Now()
	certificate := Describe(leaf)
	before := s.d
	s.moveTo(Completed, began)
	s.d.Certificate = &certificate
	s.d.EnrolledAt = now
	s.d.RenewAt = s.renewAt(ctx, certificate, s.e.IssuedAt)
	s.d.Attempts, s.d.NextAttempt, s.d.LastError = 0, time.Time{}, ""
	// A CA whose certificates last for seconds is not asked in a loop.
	least := s.r.Policy.floor(s.lifetime())
	if floor := s.e.SubmittedAt.Add(least); fleet.Waits(floor, now, least) && (s.d.RenewAt.Before(floor) || certificate.NotAfter.Before(floor)) {
		s.d.NextAttempt = floor
	}
	s.events = append(s.events, Event{
		At: now, Device: s.e.Device, Enrolment: s.e.ID, State: Completed, Kind: EventCompleted,
		Message: "certificate " + certificate.Serial + " is active until " + certificate.NotAfter.Format(time.RFC3339),
		Took:    s.e.Steps.Total(),
	})
	if err := s.save(ctx); err != nil {
		s.e.State, s.d = Activated, before
		return err
	}
	return nil
}

// Planner counts the renewals of the fleet that are planned from one time to
// another, the latter excluded.
type Planner interface {
	PlannedRenewals(ctx context.Context, from, to time.Time) (int, error)
}

// renewAt plans the renewal of a certificate.
func (s *session) renewAt(ctx context.Context, c fleet.Certificate, received time.Time) time.Time {
	var planned fleet.Planned
	if s.r.Planned != nil {
		planned = func(from, to time.Time) (int, error) { return s.r.Planned.PlannedRenewals(ctx, from, to) }
	}
	at, err := s.r.Policy.Window.Place(s.d.Name, c, received, s.r.Limits, planned)
	if err != nil { // then others may be planned at the same time, and wait for each other
		s.r.Log.Warn("the renewal is planned without regard to others", "device", s.d.Name, "error", err)
	}
	return at
}

// abandonStale ends an open enrolment that can lead to nothing any more: at a
// CA that is no longer the one in use, or with a certificate that expired
// before it could be activated. The error then wraps ErrNotFound, since the
// device has no open enrolment afterwards.
func (s *session) abandonStale(ctx context.Context) error {
	var why error
	switch s.e.State {
	case Requested, CSRReceived, Submitted, Issued:
		if s.e.CA != s.r.CAName {
			why = fmt.Errorf("CA %s is no longer in use", s.e.CA)
		}
	case PreVerified, Verified:
		leaf, err := x509.ParseCertificate(s.e.Certificate)
		if err != nil {
			return fmt.Errorf("parse the certificate in the store: %w", err)
		}
		if !leaf.NotAfter.After(s.r.Now()) {
			why = fmt.Errorf("%w: it expired before it could be installed", ErrCertificate)
		}
	}
	if why == nil {
		return nil
	}
	s.end(&Fault{By: PartyCLM, Class: ClassSuperseded, Uncounted: true, Err: why})
	if err := s.save(ctx); err != nil {
		return err
	}
	return ErrNotFound
}

// stop records why the run ended before the enrolment did.
func (s *session) stop(ctx context.Context, err error) Result {
	result := Result{Device: s.e.Device, Outcome: OutcomeFailed, Enrolment: s.e}
	interrupted := errors.Is(ctx.Err(), context.Canceled)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitGrace)
	defer cancel()
	if interrupted {
		// Somebody ended the run: that says nothing about the device. What was
		// reached is kept, above all a certificate that was issued.
		result.Outcome, result.Err = OutcomePending, fmt.Errorf("interrupted: %w", context.Canceled)
		if len(s.events) > 0 {
			result.Err = errors.Join(result.Err, s.save(ctx))
		}
		return result
	}
	if errors.Is(err, ErrDecommissioned) {
		return s.leaveOff(err)
	}
	f := classify(err)
	if f.Unasked && len(s.events) == 0 {
		result.Outcome, result.Err = OutcomePending, f
		return result
	}
	s.blameCA(ctx, f)
	if s.e.State == Verified && s.e.Rollbacks >= s.r.Policy.HookTries {
		f.Transient = false
	}
	if f.Class != ClassInternal {
		if f.Transient {
			s.postpone(f)
		} else {
			s.end(f)
		}
		err := s.save(ctx)
		if errors.Is(err, ErrDecommissioned) {
			return s.leaveOff(err)
		}
		if err != nil {
			f = &Fault{By: PartyCLM, Class: ClassInternal, Transient: true, Err: errors.Join(f, err)}
		}
	}
	switch f.Class {
	case ClassCAUnavail, ClassCAPending, ClassClock:
		result.Outcome = OutcomePending
	}
	result.Err = f
	return result
}

// leaveOff is the end of a run whose device was taken out of service meanwhile:
// the store ended the enrolment then, and takes nothing more of it.
func (s *session) leaveOff(err error) Result {
	return Result{Device: s.e.Device, Outcome: OutcomeSkipped, Err: err, Enrolment: s.e}
}

// classify makes a Fault of any error of an effect.
func classify(err error) *Fault {
	var f *Fault
	if errors.As(err, &f) {
		return f
	}
	var refusal *DeviceError
	if errors.As(err, &refusal) || errors.Is(err, ErrUnreachable) || errors.Is(err, ErrIdentity) ||
		errors.Is(err, context.DeadlineExceeded) {
		return deviceFault(err)
	}
	return &Fault{By: PartyCLM, Class: ClassInternal, Transient: true, Err: err}
}

// postpone keeps the state and sets the time of the next try.
func (s *session) postpone(f *Fault) {
	now := s.r.Now()
	s.e.Tries++
	wait := s.r.Policy.retry(f.Class, s.e.Tries, s.d.Name, s.lifetime())
	if f.After > 0 {
		wait = min(f.After, s.r.Policy.LongestWait())
	}
	s.e.NextTry, s.e.LastError = now.Add(wait), f.Error()
	s.d.NextAttempt, s.d.LastError = s.e.NextTry, f.Error()
	if f.By == PartyCA {
		// The device has answered, and waits for the CA: it is not one of those
		// that fail, which have to wait for others.
		s.d.LastError = ""
	}
	s.record(EventRetry, f)
}

// end fails the enrolment. A counted failure brings the device nearer to its
// quarantine (section V.B of the paper: a pre-established number of attempts,
// after which the administrator is notified).
func (s *session) end(f *Fault) {
	now := s.r.Now()
	s.record(EventFailed, f)
	s.e.State, s.e.FailedBy, s.e.LastError = Failed, f.By, f.Error()
	s.d.LastError = f.Error()
	s.d.NextAttempt = time.Time{}
	if floor := s.e.SubmittedAt.Add(s.r.Policy.floor(s.lifetime())); !s.e.SubmittedAt.IsZero() && floor.After(now) {
		s.d.NextAttempt = floor
	}
	if f.Uncounted {
		return
	}
	s.d.Attempts++
	if retry := now.Add(s.r.Policy.retry(f.Class, s.d.Attempts, s.d.Name, s.lifetime())); retry.After(s.d.NextAttempt) {
		s.d.NextAttempt = retry
	}
	if s.d.Attempts >= s.r.Policy.MaxAttempts {
		s.d.Quarantined = true
		s.record(EventQuarantined, f)
	}
}

func (s *session) record(kind EventKind, f *Fault) {
	s.events = append(s.events, Event{
		At: s.r.Now(), Device: s.e.Device, Enrolment: s.e.ID, State: s.e.State, Kind: kind,
		Class: f.Class, By: f.By, Message: f.Error(),
	})
	s.r.Log.Warn("enrolment "+string(kind), "device", s.e.Device, "enrolment", s.e.ID, "state", s.e.State,
		"class", f.Class, "by", f.By, "error", f.Error())
}
