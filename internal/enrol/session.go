package enrol

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// session is one run of one enrolment: the durable value, and what lives only
// as long as the process does.
type session struct {
	r      *Runner
	e      *Enrolment
	d      fleet.Device
	dev    Device  // nil until first needed, or after it broke
	met    bool    // the device was asked what it has
	csr    []byte  // nil after a restart
	events []Event // not stored yet

	asked   time.Time     // when the CA was asked in this run; zero: it was not
	took    time.Duration // its answer
	probing bool          // this run finds out whether the CA answers again

	delivered bool // what was queued for the device has been tried
}

// call does one exchange on the session's channel, which it opens when first
// needed. If a channel that had worked gives no answer (the device may have
// restarted meanwhile), or is that of an identity which the device no longer
// presents, it is opened anew, once.
func (s *session) call(ctx context.Context, exchange func(Device) error) error {
	used := s.dev != nil
	if !used {
		if err := s.dial(ctx); err != nil {
			return err
		}
	}
	err := exchange(s.dev)
	if err == nil || !errors.Is(err, ErrUnreachable) && !replaced(err) {
		return err
	}
	s.hangUp()
	if !used && !replaced(err) || ctx.Err() != nil {
		return err
	}
	if err := s.dial(ctx); err != nil {
		return err
	}
	return exchange(s.dev)
}

// replaced reports whether a device says that it has another identity by now.
func replaced(err error) bool {
	var refusal *DeviceError
	return errors.As(err, &refusal) && refusal.Problem == ProblemReplaced
}

// dial opens the channel, and hands over what is queued for the device before
// anything else is asked of it.
func (s *session) dial(ctx context.Context) error {
	for s.dev == nil { // a delivery may have broken the channel, once
		dev, err := s.r.Dialer.Dial(ctx, s.d)
		if err != nil {
			dev, err = s.rescue(ctx, err)
		}
		if err != nil {
			return fmt.Errorf("connect to %s: %w", s.d.Name, err)
		}
		s.dev = dev
		if id := dev.Identity(); id.Compare(s.d.Identity) > 0 {
			s.d.Identity = id
		}
		if err := s.deliver(ctx); err != nil {
			return err
		}
	}
	if !s.e.State.Final() {
		s.e.Identity = s.dev.Identity()
	}
	if s.met {
		return nil
	}
	if err := s.meet(ctx); err != nil {
		return err
	}
	s.met = true
	return nil
}

func (s *session) hangUp() {
	if s.dev == nil {
		return
	}
	if err := s.dev.Close(); err != nil {
		s.r.Log.Debug("close channel", "device", s.d.Name, "error", err)
	}
	s.dev = nil
}

// moveTo enters a state after an effect that began at a time.
func (s *session) moveTo(next State, began time.Time) {
	now := s.r.Now()
	s.events = append(s.events, Event{
		At: now, Device: s.e.Device, Enrolment: s.e.ID, State: s.e.State, Kind: EventProgress,
		Message: string(next), Took: now.Sub(began),
	})
	s.e.State, s.e.NextTry, s.e.LastError = next, time.Time{}, ""
	if next != Activated { // which may be taken back, and is then no progress
		s.e.Tries = 0
	}
}

func (s *session) warn(message string) {
	s.events = append(s.events, Event{
		At: s.r.Now(), Device: s.e.Device, Enrolment: s.e.ID, State: s.e.State, Kind: EventWarning, Message: message,
	})
	s.r.Log.Warn(message, "device", s.e.Device, "enrolment", s.e.ID)
}

// save commits the enrolment, the device's row and the events since the last
// commit. It does nothing if there is nothing new.
func (s *session) save(ctx context.Context) error {
	if s.e.Revision > 0 && len(s.events) == 0 {
		return nil
	}
	s.e.UpdatedAt = s.r.Now()
	if err := s.r.Store.Commit(ctx, Change{Enrolment: s.e, Device: &s.d, Events: s.events}); err != nil {
		return fmt.Errorf("store enrolment: %w", err)
	}
	s.events = nil
	return nil
}

// checkResponse checks a device's proof and makes it a receipt.
func (s *session) checkResponse(id ibc.Identity, nonce [NonceSize]byte, v VerifyResponse) (Receipt, error) {
	leaf, err := x509.ParseCertificate(s.e.Certificate)
	if err != nil {
		return Receipt{}, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	params, err := s.r.Params(id.Epoch)
	if err != nil {
		return Receipt{}, fmt.Errorf("parameters of epoch %d: %w", id.Epoch, err)
	}
	receipt := Receipt{
		Identity: id, Nonce: nonce, Possession: v.Possession, Statement: v.Statement, ParamsID: params.ID(),
		Certificate: v.Certificate, SPKI: sha256.Sum256(leaf.RawSubjectPublicKeyInfo),
	}
	return receipt, CheckReceipt(params, s.e.ID, leaf, receipt)
}

// checkValidity judges the dates of a certificate that may have waited since
// it was issued, with clocks that may be wrong.
func checkValidity(e *Enrolment, leaf *x509.Certificate, now time.Time) error {
	if leaf.NotAfter.After(now) {
		return nil
	}
	end := leaf.NotAfter.UTC().Format(time.RFC3339)
	if leaf.NotAfter.After(e.IssuedAt) {
		return &Fault{By: PartyCLM, Class: ClassCLMVerify, Uncounted: true,
			Err: fmt.Errorf("%w: it expired at %s, before it could be installed", ErrCertificate, end)}
	}
	// The CA's clock when it issued: a certificate for a key that is as new as
	// this one is no old one, so its begin will do.
	issued := e.CADate
	if issued.IsZero() {
		issued = leaf.NotBefore
	}
	lifetime := leaf.NotAfter.Sub(issued)
	if lifetime <= 0 {
		return misfit(&CAMismatch{What: "a certificate that expired at " + end})
	}
	clocks := fmt.Errorf("our clock says %s, the CA's said %s: a certificate valid until %s cannot be judged",
		now.UTC().Format(time.RFC3339), issued.UTC().Format(time.RFC3339), end)
	// If ours is the wrong one, it is worth waiting: the certificate is good.
	// If it was the CA's, only another certificate helps. One that came in our
	// future says nothing about how long we have waited.
	if waited := now.Sub(e.IssuedAt); waited < 0 || waited >= min(lifetime/8, longestDoubt) {
		return &Fault{By: PartyCLM, Class: ClassClock, Uncounted: true, Err: fmt.Errorf("%w; it is given up", clocks)}
	}
	return &Fault{By: PartyCLM, Class: ClassClock, Transient: true, Err: clocks}
}

// longestDoubt is how long a certificate is kept that either our clock or the
// CA's, being wrong, makes look expired; an eighth of its lifetime if that is
// shorter. Then the CA is asked for another one: one in each such time.
const longestDoubt = 24 * time.Hour

// misfit makes a Fault of what PreVerify and ParseChain say about a CA's
// authenticated answer.
func misfit(err error) *Fault {
	var mismatch *CAMismatch
	if errors.As(err, &mismatch) {
		return &Fault{By: PartyCA, Class: ClassCAMismatch, Err: err}
	}
	return &Fault{By: PartyCLM, Class: ClassCLMVerify, Err: err}
}

func rawCertificates(certificates []*x509.Certificate) [][]byte {
	out := make([][]byte, len(certificates))
	for i, c := range certificates {
		out[i] = c.Raw
	}
	return out
}
