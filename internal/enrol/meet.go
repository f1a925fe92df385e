package enrol

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// meet asks the device, at the first contact of a run, what it has, and lets
// the inventory follow: a device may have gone back to its previous
// certificate by itself or by somebody's hand, or have been reset.
func (s *session) meet(ctx context.Context) error {
	status, err := s.dev.Status(ctx)
	if err != nil {
		return fmt.Errorf("ask what the device has: %w", err)
	}
	return s.follow(ctx, status)
}

// follow compares what the device has with what the inventory says, which it
// corrects. What this enrolment has activated is not the inventory's business
// before it is confirmed.
func (s *session) follow(ctx context.Context, status DeviceStatus) error {
	recorded, active := s.d.Certificate, status.Active
	switch {
	case active == nil && recorded == nil,
		active != nil && recorded != nil && active.SHA256 == recorded.SHA256,
		active != nil && s.onTrial(active.SHA256):
		return nil
	case active == nil:
		s.forget("the device has no active certificate any more" + reason(status))
		return nil
	}
	owner, err := s.r.Store.EnrolmentByCertificate(ctx, active.SHA256)
	switch {
	case errors.Is(err, ErrNotFound):
		s.stranger(status, "which is not on record here")
		return nil
	case err != nil:
		return fmt.Errorf("look up the device's certificate: %w", err)
	case owner.Device != s.d.Name:
		s.stranger(status, "which was issued for "+owner.Device)
		return nil
	case sha256.Sum256(owner.Certificate) != active.SHA256:
		s.stranger(status, "which another one of its enrolment has replaced")
		return nil
	}
	return s.adopt(ctx, owner, status)
}

// onTrial reports whether a certificate is the one of the open enrolment.
func (s *session) onTrial(certificate [32]byte) bool {
	return !s.e.State.Final() && len(s.e.Certificate) > 0 && sha256.Sum256(s.e.Certificate) == certificate
}

// stranger records that the device uses a certificate that is none of its own
// on record. With nothing on record, it is said once for each enrolment.
func (s *session) stranger(status DeviceStatus, what string) {
	message := fmt.Sprintf("the device's active certificate is %s, %s%s", status.Active.Serial, what, reason(status))
	switch {
	case s.d.Certificate != nil:
		s.forget(message)
	case s.e.Revision == 0:
		s.warn(message)
	}
}

// forget makes the device one without a certificate on record: it is due.
func (s *session) forget(message string) {
	s.warn(message + "; on record was " + s.d.Certificate.Serial)
	s.d.Certificate, s.d.EnrolledAt, s.d.RenewAt = nil, time.Time{}, time.Time{}
}

// adopt makes the certificate of one of the device's enrolments the one on
// record.
func (s *session) adopt(ctx context.Context, owner *Enrolment, status DeviceStatus) error {
	leaf, err := x509.ParseCertificate(owner.Certificate)
	if err != nil {
		return fmt.Errorf("parse the certificate in the store: %w", err)
	}
	certificate := Describe(leaf)
	message := fmt.Sprintf("certificate %s is active again until %s", certificate.Serial, certificate.NotAfter.UTC().Format(time.RFC3339))
	if s.d.Certificate != nil {
		message += ", " + s.d.Certificate.Serial + " is not"
	}
	s.fact(EventRolledBack, message+reason(status), s.r.Now())
	s.d.Certificate, s.d.EnrolledAt = &certificate, s.r.Now()
	s.d.RenewAt = s.renewAt(ctx, certificate, owner.IssuedAt)
	return nil
}

// reason is why, in the device's words.
func reason(status DeviceStatus) string {
	if status.LastError == "" {
		return ""
	}
	return ": " + status.LastError
}
