package enrol

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/edgeclm/edgeclm/internal/fleet"
)

// confirm reads the active certificate back and looks whether it is served;
// only then the device drops its rollback timer.
func (s *session) confirm(ctx context.Context) error {
	began := s.r.Now()
	status, err := s.readStatus(ctx)
	if err != nil {
		return fmt.Errorf("read back the active certificate: %w", err)
	}
	if status.Active == nil || status.Active.SHA256 != s.e.Receipt.Certificate {
		return s.wasRolledBack(status.LastError)
	}
	if err := s.probe(ctx, status); err != nil {
		return err
	}
	err = s.call(ctx, func(dev Device) error { return dev.Confirm(ctx, s.e.ID, s.e.Receipt.Certificate) })
	var refusal *DeviceError
	if errors.As(err, &refusal) && refusal.Problem == ProblemConflict {
		return s.wasRolledBack(refusal.Detail)
	}
	if err != nil {
		return fmt.Errorf("confirm: %w", err)
	}
	if err := saw(ctx, s.r.Sightings, s.d.Name, s.e.Identity, status, s.r.Now()); err != nil {
		s.warn(err.Error())
	}
	s.e.Steps.KeyAndCSR = min(status.KeyAndCSR, s.e.Steps.CSRRequest)
	s.e.Steps.CSRRequest -= s.e.Steps.KeyAndCSR
	s.e.Steps.Verification = min(status.Verification, s.e.Steps.VerifyRequest)
	s.e.Steps.VerifyRequest -= s.e.Steps.Verification
	return s.complete(ctx, began)
}

func (s *session) readStatus(ctx context.Context) (status DeviceStatus, err error) {
	err = s.call(ctx, func(dev Device) (err error) {
		status, err = dev.Status(ctx)
		return err
	})
	return status, err
}

// probe looks whether the device's TLS server presents the active certificate,
// if it is known to have one. An expired certificate is confirmed as it is:
// no client would accept it, and its renewal must not wait for one that does.
func (s *session) probe(ctx context.Context, status DeviceStatus) error {
	leaf, err := x509.ParseCertificate(s.e.Certificate)
	if err != nil {
		return fmt.Errorf("parse the certificate in the store: %w", err)
	}
	p := Probe{Device: s.d, Endpoint: status.Endpoint, Names: leaf.DNSNames, Certificate: s.e.Receipt.Certificate}
	if named := fleet.SelectProfile(s.r.Profiles, s.d).Endpoint; named != "" {
		p.Endpoint, p.Vouched = named, true
	}
	if s.r.Prober == nil || p.Endpoint == "" || p.Endpoint == fleet.NoEndpoint || !leaf.NotAfter.After(s.r.Now()) {
		return nil
	}
	began := s.r.Now()
	err = s.r.Prober.Probe(ctx, p)
	switch {
	case err == nil:
		s.fact(EventServed, fmt.Sprintf("TLS at %s presents the certificate", p.Endpoint), began)
		return nil
	case errors.Is(err, ErrNotProbed):
		s.warn(fmt.Sprintf("whether the certificate is served was not looked at: %v", err))
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("probe %s: %w", p.Endpoint, err)
	}
	return s.takeBack(ctx, fmt.Errorf("probe %s: %w", p.Endpoint, err))
}

// takeBack has the previous pair restored, since the new one is not served.
// Where there is none to restore the device keeps what it has, and is probed
// again: another certificate would be no better.
func (s *session) takeBack(ctx context.Context, why error) error {
	fault := &Fault{By: PartyDevice, Class: ClassNotServed, Transient: true, Err: why}
	err := s.call(ctx, func(dev Device) error { return dev.Rollback(ctx, s.e.ID, s.e.Receipt.Certificate) })
	var refusal *DeviceError
	switch {
	case err == nil:
		s.e.State = Verified
		s.e.Rollbacks++
		s.fact(EventRolledBack, "the device was asked to restore its previous certificate: "+why.Error(), s.r.Now())
		return fault
	case !errors.As(err, &refusal):
		fault.Err = fmt.Errorf("%w; the previous certificate could not be asked for: %w", why, err)
		return fault
	}
	status, err := s.readStatus(ctx)
	if err != nil {
		fault.Err = fmt.Errorf("%w; what the device has is not known: %w", why, err)
		return fault
	}
	if status.Active == nil || status.Active.SHA256 != s.e.Receipt.Certificate {
		return s.wasRolledBack(status.LastError)
	}
	fault.Err = fmt.Errorf("%w; it stays active, since %s", why, refusal.Detail)
	return fault
}

// wasRolledBack goes back to verified: the device restored its previous pair
// by itself and keeps the new one staged. That nobody confirmed in time is not
// the device's fault, so it is tried again for as long as it takes.
func (s *session) wasRolledBack(detail string) error {
	if detail == "" {
		detail = "it was not confirmed in time"
	}
	err := fmt.Errorf("the device has restored its previous certificate: %s", detail)
	s.e.State = Verified
	s.fact(EventRolledBack, err.Error(), s.r.Now())
	return &Fault{By: PartyDevice, Class: ClassUnconfirmed, Transient: true, Err: err}
}

// fact records what was found out, which began at a time.
func (s *session) fact(kind EventKind, message string, began time.Time) {
	now := s.r.Now()
	s.events = append(s.events, Event{
		At: now, Device: s.d.Name, Enrolment: s.e.ID, State: s.e.State, Kind: kind, Message: message, Took: now.Sub(began),
	})
	s.r.Log.Info(message, "device", s.d.Name, "enrolment", s.e.ID)
}
