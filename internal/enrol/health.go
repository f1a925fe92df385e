package enrol

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// ErrNotAsked says that the CA was left alone: its breaker is open, it is in a
// maintenance window, or the rate leaves no place. The store is as it was.
var ErrNotAsked = errors.New("the CA is not asked")

func notAsked(after time.Duration, err error) *Fault {
	return &Fault{By: PartyCA, Class: ClassCAUnavail, Transient: true, Uncounted: true, Unasked: true, After: max(after, time.Second),
		Err: fmt.Errorf("%w: %w", ErrNotAsked, err)}
}

// mayAsk refuses to work for a CA that is not to be asked now, before a device
// makes a key pair for nothing, and again before the request.
func (s *session) mayAsk(ctx context.Context) error {
	now := s.r.Now()
	if end, closed := s.r.Limits.Calendar.Within(now); closed {
		return notAsked(end.Sub(now), fmt.Errorf("CA %s is in a maintenance window until %s", s.e.CA, end.UTC().Format(time.RFC3339)))
	}
	if s.r.Health == nil {
		return nil
	}
	b, err := s.r.Health.Breaker(ctx, s.e.CA)
	if err != nil {
		return fmt.Errorf("read the breaker of CA %s: %w", s.e.CA, err)
	}
	ok, until, probe := b.Allows(now)
	if !ok && s.probing && b.Probing == s.e.Device {
		return nil
	}
	if ok && probe {
		b, err = s.r.Health.UpdateBreaker(ctx, s.e.CA, func(b *Breaker) bool {
			ok = b.Probe(now, s.e.Device)
			return ok && b.Probing == s.e.Device
		})
		if err != nil {
			return fmt.Errorf("try CA %s: %w", s.e.CA, err)
		}
		s.probing = ok && b.Probing == s.e.Device
		until = b.Until
	}
	if ok {
		return nil
	}
	why := fmt.Errorf("the last answers of CA %s were no good (%s: %s); it is tried again at %s", s.e.CA, b.Class, b.LastError, until.UTC().Format(time.RFC3339))
	return notAsked(until.Sub(now), why)
}

// askCA sends the request when all processes together may ask the CA once
// more. The wait is no part of the CA's time.
func (s *session) askCA(ctx context.Context, submission Submission) (answer Answer, err error) {
	if s.r.Gate != nil {
		leave, err := s.r.Gate.Enter(ctx, s.e.CA)
		var later *TryLater
		switch {
		case errors.As(err, &later):
			return Answer{}, notAsked(later.After, later.Err)
		case err != nil:
			return Answer{}, fmt.Errorf("wait for CA %s: %w", s.e.CA, err)
		}
		defer leave()
	}
	began := s.r.Now()
	answer, err = s.r.CA.Submit(ctx, submission)
	s.took = s.r.Now().Sub(began)
	s.asked = began
	if err != nil {
		return answer, caFault(fmt.Errorf("submit to CA %s: %w", s.e.CA, err))
	}
	return answer, nil
}

// praiseCA records that the CA issued a certificate that fits.
func (s *session) praiseCA(ctx context.Context) {
	now := s.r.Now()
	s.tell(ctx, func(b *Breaker) bool { return b.Succeeded(now, s.took) })
	s.probing = false
}

// blameCA records a failure at the CA. It spares a device whose failure several
// others had too.
func (s *session) blameCA(ctx context.Context, f *Fault) {
	if f.Unasked {
		return
	}
	now := s.r.Now()
	switch {
	case f.Class == ClassCAUnavail, f.Class == ClassCARejected, f.Class == ClassCAMismatch, f.Class == ClassCLMVerify && !f.Uncounted:
		s.tell(ctx, func(b *Breaker) bool {
			f.Uncounted = b.Failed(now, s.e.Device, f, s.r.Policy.BreakerFor(s.lifetime()))
			return true
		})
		s.probing = false
	case f.Class == ClassCAPending, f.Class == ClassCLMVerify, f.Class == ClassClock:
		if !s.asked.IsZero() {
			s.tell(ctx, (*Breaker).Answered)
			s.probing = false
		}
	}
}

// leaveCA lets another device try the CA, if this one was to and did not get so
// far.
func (s *session) leaveCA(ctx context.Context) {
	if !s.probing {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitGrace)
	defer cancel()
	s.tell(ctx, func(b *Breaker) bool { return b.Release(s.e.Device) })
}

// tell changes the CA's breaker, if the change is one. That it cannot be stored
// keeps nobody from a certificate.
func (s *session) tell(ctx context.Context, change func(*Breaker) bool) {
	if s.r.Health == nil {
		return
	}
	b, err := s.r.Health.Breaker(ctx, s.e.CA)
	if err == nil && !change(&b) {
		return
	}
	before := b.State
	if err == nil {
		b, err = s.r.Health.UpdateBreaker(ctx, s.e.CA, change)
	}
	switch {
	case err != nil:
		s.r.Log.Warn("the CA's health was not recorded", "ca", s.e.CA, "error", err)
	case before == BreakerOpen && b.State == BreakerOpen:
		s.r.Log.Warn("the CA's breaker is open", "ca", s.e.CA, "until", b.Until, "class", b.Class, "error", b.LastError)
	}
}
