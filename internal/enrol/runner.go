package enrol

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Runner moves enrolments. Its fields are set once; it is safe for concurrent
// use on different devices, and Store.Lease keeps others off the same one.
type Runner struct {
	Store      Store
	Boats      Boatman       // brings lifeboats that wait to devices that are of another root; nil: nobody does
	Deliveries DeliveryStore // handed over before a device is worked on; nil: there are none
	Sightings  SightingStore // told of the devices' trust anchors; nil: nobody is
	Dialer     Dialer
	CA         CA
	Prober     Prober // nil: nobody looks whether certificates are served
	CAName     string
	Health     HealthStore  // keeps the breaker of the CA; nil: there is none
	Gate       Gate         // keeps all processes within what the CA takes; nil: nobody does
	Limits     fleet.Limits // what the CA takes, for the plan of renewals
	Planned    Planner      // counts what is planned; nil: nothing is known of it
	Profiles   []fleet.Profile
	Policy     Policy
	Params     func(epoch uint32) (Verifier, error) // verifies the devices' statements
	Now        func() time.Time
	Random     io.Reader
	Log        *slog.Logger
}

// Outcome is what became of one device in one run.
type Outcome string

// The outcomes. Pending means that the work goes on later through no fault of
// the device: the CA has not decided or cannot be had, or our clock is wrong.
const (
	OutcomeRenewed Outcome = "renewed"
	OutcomeFailed  Outcome = "failed"
	OutcomePending Outcome = "pending"
	OutcomeSkipped Outcome = "skipped"
	// OutcomeDelivered is a Courier's: the device was reached, and has all that was
	// queued for it and could be handed over (see Courier.Visit).
	OutcomeDelivered Outcome = "delivered"
)

// Result is the outcome of one run for one device.
type Result struct {
	Device    string
	Outcome   Outcome
	Err       error      // of a failed or pending one a *Fault; why it was skipped
	Enrolment *Enrolment // nil if there was nothing to do
}

// ErrNotNow says that the device is paused, quarantined or decommissioned, or
// that its next try is still ahead.
var ErrNotNow = errors.New("not now")

// Run tries one device once: it resumes the device's open enrolment or begins
// a new one, and carries it as far as it comes. With force it ignores the time
// of the next try; it never works on a paused, quarantined or
// decommissioned device, and leaves off at its next commit if it becomes that.
func (r *Runner) Run(ctx context.Context, device string, force bool) Result {
	release, err := r.Store.Lease(ctx, device)
	if err != nil {
		return Result{Device: device, Outcome: OutcomeSkipped, Err: err}
	}
	defer release()
	s, err := r.begin(ctx, device, force)
	if errors.Is(err, ErrNotNow) || errors.Is(err, ErrDecommissioned) {
		return Result{Device: device, Outcome: OutcomeSkipped, Err: err}
	}
	if err != nil {
		return Result{Device: device, Outcome: OutcomeFailed, Err: &Fault{By: PartyCLM, Class: ClassInternal, Transient: true, Err: err}}
	}
	defer s.hangUp()
	defer s.leaveCA(ctx)
	for !s.e.State.Final() {
		if err := s.advance(ctx); err != nil {
			return s.stop(ctx, err)
		}
	}
	return Result{Device: device, Outcome: OutcomeRenewed, Enrolment: s.e}
}

// begin loads what the store knows and returns a session on the device's open
// enrolment, or on a new one that the store does not know yet.
func (r *Runner) begin(ctx context.Context, name string, force bool) (*session, error) {
	d, err := r.Store.Device(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("load device %s: %w", name, err)
	}
	switch {
	case !d.InService():
		return nil, fmt.Errorf("%w: %s is %w", ErrNotNow, name, ErrDecommissioned)
	case d.Paused:
		return nil, fmt.Errorf("%w: %s is paused", ErrNotNow, name)
	case d.Quarantined:
		return nil, fmt.Errorf("%w: %s is quarantined: %s", ErrNotNow, name, d.LastError)
	case !force && r.Policy.Waiting(d, r.Now()):
		return nil, fmt.Errorf("%w: the next try of %s is at %s", ErrNotNow, name, d.NextAttempt.UTC().Format(time.RFC3339))
	}
	s := &session{r: r, d: d}
	s.e, err = r.Store.OpenEnrolment(ctx, name)
	if err == nil {
		err = s.abandonStale(ctx)
	}
	if errors.Is(err, ErrNotFound) {
		// Another run may have renewed it since it was found due.
		if !force && !s.d.Due(r.Now()) {
			return nil, fmt.Errorf("%w: %s is not due before %s, renewed meanwhile", ErrNotNow, name, d.RenewAt.UTC().Format(time.RFC3339))
		}
		s.e, err = r.newEnrolment(d)
	}
	if err != nil {
		return nil, fmt.Errorf("load enrolment of %s: %w", name, err)
	}
	return s, nil
}

// newEnrolment decides what certificate is asked for.
func (r *Runner) newEnrolment(d fleet.Device) (*Enrolment, error) {
	id, err := NewID(r.Random)
	if err != nil {
		return nil, err
	}
	profile, err := fleet.SelectProfile(r.Profiles, d).For(d)
	if err != nil {
		return nil, err
	}
	subject, sans := SplitNames(d.CertificateNames())
	e := &Enrolment{
		ID: id, Device: d.Name, Identity: d.Identity, State: Requested, CA: r.CAName,
		Key: profile.Key, Subject: subject, SANs: sans,
		KeyUsage: profile.KeyUsage, ExtKeyUsage: profile.ExtKeyUsage,
		Confirmation: r.Policy.ConfirmWithin, CreatedAt: r.Now(),
	}
	if len(profile.Subject) > 0 {
		e.Enclosed, e.Subject = true, profile.Subject
	}
	if len(profile.SANs) > 0 {
		e.Enclosed, e.SANs = true, profile.SANs
	}
	return e, nil
}

// advance is one step of the life of a certificate: the state's one effect,
// which may be repeated, and the next state.
//
// Three states are durable before their effect, since it is seen elsewhere:
// submitted (the CA must never see a transaction that we could forget),
// pre-verified (the device must never stage a certificate that we do not
// have), and the final ones. The others share the next commit: a crash there
// repeats effects that give the same result.
func (s *session) advance(ctx context.Context) error {
	switch s.e.State {
	case Requested:
		return s.requestCSR(ctx)
	case CSRReceived:
		return s.checkCSR(ctx)
	case Submitted:
		if err := s.save(ctx); err != nil {
			return err
		}
		return s.submit(ctx)
	case Issued:
		return s.preVerify(ctx)
	case PreVerified:
		if err := s.save(ctx); err != nil {
			return err
		}
		return s.verify(ctx)
	case Verified:
		return s.activate(ctx)
	case Activated:
		return s.confirm(ctx)
	case Completed, Failed:
		return nil
	}
	return fmt.Errorf("the store has an enrolment in the unknown state %q", s.e.State)
}

// requestCSR is step 1 of the paper, CSR_generation_request.
func (s *session) requestCSR(ctx context.Context) error {
	if err := s.mayAsk(ctx); err != nil {
		return err
	}
	began := s.r.Now()
	csr, err := s.fetchCSR(ctx)
	if err != nil {
		return err
	}
	s.csr, s.e.CSRHash = csr, sha256.Sum256(csr)
	s.e.Steps.CSRRequest += s.r.Now().Sub(began)
	s.moveTo(CSRReceived, began)
	return nil
}

// fetchCSR asks the device for the enrolment's CSR. A device that has had a
// certificate of this CA is sent the hash of the CA's certificate alone.
func (s *session) fetchCSR(ctx context.Context) ([]byte, error) {
	challenge, err := s.r.CA.Challenge(ctx, s.e.Device)
	if err != nil {
		return nil, caFault(fmt.Errorf("obtain challenge: %w", err))
	}
	defer clear(challenge)
	anchor := s.r.CA.Anchor()
	req := CSRRequest{
		Enrolment: s.e.ID, CA: anchor, CAHash: sha256.Sum256(anchor), Key: s.e.Key,
		KeyUsage: s.e.KeyUsage, ExtKeyUsage: s.e.ExtKeyUsage, Challenge: challenge, Time: s.r.Now(),
	}
	if s.e.Enclosed {
		req.Enclosed, req.Subject, req.SANs = true, s.e.Subject, s.e.SANs
	}
	if s.d.Certificate != nil {
		req.CA = nil
	}
	var csr []byte
	ask := func(dev Device) (err error) {
		csr, err = dev.RequestCSR(ctx, req)
		return err
	}
	err = s.call(ctx, ask)
	var refusal *DeviceError
	if errors.As(err, &refusal) && refusal.Problem == ProblemUnknownCA && req.CA == nil {
		req.CA = anchor
		err = s.call(ctx, ask)
	}
	if err != nil {
		return nil, fmt.Errorf("request a CSR: %w", err)
	}
	return csr, nil
}

// theCSR returns the CSR that the enrolment is about. After a restart the
// device is asked again, and has to give the same one.
func (s *session) theCSR(ctx context.Context) ([]byte, error) {
	if s.csr != nil {
		return s.csr, nil
	}
	csr, err := s.fetchCSR(ctx)
	if err != nil {
		return nil, err
	}
	if sha256.Sum256(csr) != s.e.CSRHash {
		return nil, &Fault{By: PartyDevice, Class: ClassSuperseded, Uncounted: true,
			Err: errors.New("the device no longer has the key of this enrolment")}
	}
	s.csr = csr
	return csr, nil
}

// checkCSR checks the CSR and derives the transaction ID from its key (RFC
// 8894 section 3.2.1.1), so that repetitions carry the same one.
func (s *session) checkCSR(ctx context.Context) error {
	began := s.r.Now()
	der, err := s.theCSR(ctx)
	if err != nil {
		return err
	}
	csr, err := CheckCSR(der, s.e)
	if err != nil {
		return &Fault{By: PartyCLM, Class: ClassCSR, Err: err}
	}
	s.e.SPKIHash = sha256.Sum256(csr.RawSubjectPublicKeyInfo)
	s.e.TransactionID = hex.EncodeToString(s.e.SPKIHash[:20])
	s.e.SubmittedAt = began
	s.moveTo(Submitted, began)
	return nil
}

// submit is step 3 of the paper, the delegated enrolment at the CA.
func (s *session) submit(ctx context.Context) error {
	if err := s.mayAsk(ctx); err != nil {
		return err
	}
	csr, err := s.theCSR(ctx)
	if err != nil {
		return err
	}
	answer, err := s.askCA(ctx, Submission{TransactionID: s.e.TransactionID, CSR: csr, Pending: s.e.Pending})
	if err != nil {
		return err
	}
	s.e.Pending = answer.Pending
	if answer.Pending {
		after := answer.RetryAfter
		if after <= 0 {
			after = s.r.Policy.Poll
		}
		return &Fault{By: PartyCA, Class: ClassCAPending, Transient: true, After: after,
			Err: fmt.Errorf("CA %s has not decided yet", s.e.CA)}
	}
	leaf, others, err := ParseChain(answer.Certificates, s.e.SPKIHash)
	if err != nil {
		return misfit(err)
	}
	s.e.Certificate, s.e.Chain = leaf.Raw, rawCertificates(others)
	s.e.IssuedAt, s.e.CADate = s.r.Now(), answer.Date
	s.e.Steps.Enrolment += s.r.Now().Sub(s.asked)
	s.moveTo(Issued, s.asked)
	return nil
}

// preVerify is the end of step 3: what can be checked without the device's
// private key.
func (s *session) preVerify(ctx context.Context) error {
	began := s.r.Now()
	leaf, chain, err := PreVerify(s.e, append([][]byte{s.e.Certificate}, s.e.Chain...), s.r.CA.Anchor())
	if err != nil {
		return misfit(err)
	}
	if err := checkValidity(s.e, leaf, s.r.Now()); err != nil {
		return err
	}
	serial := Describe(leaf).Serial
	owner, err := s.r.Store.SerialOwner(ctx, leaf.RawIssuer, serial)
	switch {
	case err == nil && owner != s.e.ID:
		return misfit(&CAMismatch{What: "the serial number " + serial + " again"})
	case err != nil && !errors.Is(err, ErrNotFound):
		return fmt.Errorf("look up serial number: %w", err)
	}
	s.e.Chain = rawCertificates(chain)
	if s.d.Certificate != nil && leaf.NotAfter.Before(s.d.Certificate.NotAfter) {
		s.warn("the new certificate ends before the present one, at " + leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	s.e.Steps.Enrolment += s.r.Now().Sub(began)
	s.moveTo(PreVerified, began)
	if !s.asked.IsZero() {
		s.praiseCA(ctx)
	}
	return nil
}

// verify is step 4 of the paper, verify_certificate: the device checks and
// stages the certificate and proves that it did.
func (s *session) verify(ctx context.Context) error {
	began := s.r.Now()
	req := VerifyRequest{Enrolment: s.e.ID, Certificates: append([][]byte{s.e.Certificate}, s.e.Chain...)}
	if _, err := io.ReadFull(s.r.Random, req.Nonce[:]); err != nil {
		return fmt.Errorf("draw nonce: %w", err)
	}
	var (
		response VerifyResponse
		identity ibc.Identity
	)
	err := s.call(ctx, func(dev Device) (err error) {
		identity = dev.Identity()
		response, err = dev.VerifyCertificate(ctx, req)
		return err
	})
	if err != nil {
		return fmt.Errorf("let the device verify: %w", err)
	}
	receipt, err := s.checkResponse(identity, req.Nonce, response)
	if err != nil {
		return &Fault{By: PartyCLM, Class: ClassDeviceVerify, Err: err}
	}
	s.e.Receipt = receipt
	s.e.Steps.VerifyRequest += s.r.Now().Sub(began)
	s.moveTo(Verified, began)
	return nil
}

// activate switches the device to the staged certificate.
func (s *session) activate(ctx context.Context) error {
	began := s.r.Now()
	err := s.call(ctx, func(dev Device) error {
		return dev.Activate(ctx, s.e.ID, s.e.Receipt.Certificate, s.e.Confirmation)
	})
	var refusal *DeviceError
	if errors.As(err, &refusal) && refusal.Problem == ProblemRolledBack {
		s.e.Rollbacks++
		s.fact(EventRolledBack, "the device has kept its previous certificate: "+refusal.Detail, began)
	}
	if err != nil {
		return fmt.Errorf("activate: %w", err)
	}
	s.moveTo(Activated, began)
	return nil
}
