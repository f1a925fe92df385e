package enrol

import (
	"errors"
	"fmt"
	"time"
)

// Party is who refused.
type Party string

// The three parties of an enrolment.
const (
	PartyCLM    Party = "clm"
	PartyDevice Party = "device"
	PartyCA     Party = "ca"
)

// Class says what kind of thing went wrong, for schedules and statistics.
type Class string

// The classes of failure.
const (
	ClassUnreachable  Class = "unreachable"         // no answer from the device
	ClassIdentity     Class = "identity-refused"    // one side did not accept the other's identity
	ClassDevice       Class = "device-refused"      // the device refused the request
	ClassBusy         Class = "device-busy"         // another CLM, or no resources now
	ClassFull         Class = "device-full"         // the device has no room to store what it must
	ClassDeviceVerify Class = "verification-device" // the device did not accept the certificate
	ClassHook         Class = "hook-failed"         // the device rolled back
	ClassNotServed    Class = "not-served"          // the device's TLS server does not present the certificate
	ClassUnconfirmed  Class = "not-confirmed"       // the device went back before we could confirm
	ClassSuperseded   Class = "superseded"          // the device no longer knows the enrolment
	ClassCSR          Class = "csr-refused"         // the CLM did not accept the CSR
	ClassCLMVerify    Class = "verification-clm"    // the CLM did not accept the certificate
	ClassCAMismatch   Class = "ca-mismatch"         // the CA's authenticated answer is not for the request
	ClassCARejected   Class = "ca-rejected"         // the CA said no
	ClassCAUnavail    Class = "ca-unavailable"      // no usable answer from the CA
	ClassCAPending    Class = "ca-pending"          // the CA has not decided yet
	ClassClock        Class = "clock"               // our clock is wrong
	ClassInternal     Class = "internal"            // store, randomness
)

// Classes returns every class, in the order above.
func Classes() []Class {
	return []Class{
		ClassUnreachable, ClassIdentity, ClassDevice, ClassBusy, ClassFull, ClassDeviceVerify, ClassHook, ClassNotServed, ClassUnconfirmed,
		ClassSuperseded, ClassCSR, ClassCLMVerify, ClassCAMismatch, ClassCARejected, ClassCAUnavail, ClassCAPending, ClassClock, ClassInternal,
	}
}

// Errors of the interfaces.
var (
	// ErrUnreachable: no answer came from the device.
	ErrUnreachable = errors.New("device unreachable")
	// ErrIdentity: the peer did not prove the identity that was expected, or
	// refused ours.
	ErrIdentity = errors.New("identity refused")
	// ErrCAUnavailable: no usable answer came from the CA.
	ErrCAUnavailable = errors.New("CA unavailable")
	// ErrCAUnauthenticated: the answer is not proven to be the CA's; it may be
	// anybody's, so nothing is concluded from it.
	ErrCAUnauthenticated = errors.New("CA answer not authenticated")
	// ErrConflict: the store holds a later revision, or the device has an open
	// enrolment already.
	ErrConflict = errors.New("changed by somebody else")
	// ErrNotFound: the store has no such record.
	ErrNotFound = errors.New("not found")
	// ErrLeased: another process works on the device.
	ErrLeased = errors.New("another process works on this device")
	// ErrDecommissioned: the device is out of service.
	ErrDecommissioned = errors.New("decommissioned")
)

// TryLater is ErrCAUnavailable with the CA's own word on when to come back.
type TryLater struct {
	After time.Duration
	Err   error
}

// Error implements error.
func (e *TryLater) Error() string { return fmt.Sprintf("%v (retry after %v)", e.Err, e.After) }

// Unwrap makes it an ErrCAUnavailable.
func (e *TryLater) Unwrap() []error { return []error{ErrCAUnavailable, e.Err} }

// CARejection is an authenticated refusal by the CA.
type CARejection struct {
	FailInfo string // RFC 8894 section 3.2.1.4.1: badAlg, badMessageCheck, badRequest, badTime, badCertId
	Text     string // failInfoText or what else the CA said; "" if nothing
}

// Error implements error.
func (e *CARejection) Error() string {
	if e.Text == "" {
		return "the CA rejected the request: " + e.FailInfo
	}
	return fmt.Sprintf("the CA rejected the request: %s (%s)", e.FailInfo, e.Text)
}

// CAMismatch is an authenticated answer that does not fit the request: another
// key's certificate, another issuer's, an old one.
type CAMismatch struct {
	What string
}

// Error implements error.
func (e *CAMismatch) Error() string { return "the CA answered with " + e.What }

// Problem is a device's reason to refuse, with its CoAP response code.
type Problem string

// The problems, as they stand in the problem details (RFC 9290) on the wire.
const (
	ProblemBadRequest  Problem = "bad-request" // 4.00: malformed or out of bounds
	ProblemForbidden   Problem = "forbidden"   // 4.03: names or key that its bundle does not allow, a bundle that is not for it
	ProblemUnknown     Problem = "unknown"     // 4.04: no such enrolment
	ProblemUnknownCA   Problem = "unknown-ca"  // 4.04: the CA's certificate is wanted, not just its hash
	ProblemConflict    Problem = "conflict"    // 4.09: other parameters, another CLM, not the active certificate, an earlier bundle
	ProblemUnverified  Problem = "unverified"  // 4.22: the certificate or bundle does not verify
	ProblemRolledBack  Problem = "rolled-back" // 5.00: the reload hook failed, the previous pair is active
	ProblemInternal    Problem = "internal"    // 5.00: the device cannot
	ProblemFull        Problem = "full"        // 5.00: the device has no room to store what it must
	ProblemUnavailable Problem = "unavailable" // 5.03: not now
	// ProblemReplaced is 5.03: the device has a later identity than the one it
	// proved on this channel. On a new one it proves that.
	ProblemReplaced Problem = "identity-replaced"
)

// DeviceError is an authenticated refusal by the device.
type DeviceError struct {
	Problem Problem
	Detail  string // in words, at most 256 bytes, no secrets
}

// Error implements error.
func (e *DeviceError) Error() string {
	if e.Detail == "" {
		return "the device refused: " + string(e.Problem)
	}
	return "the device refused: " + e.Detail
}

// Fault is why an enrolment stopped.
type Fault struct {
	By        Party
	Class     Class
	Transient bool          // the state is kept and tried again
	Uncounted bool          // the failure does not count as one of the device's attempts
	Unasked   bool          // nobody was asked and the store is as it was: see ErrNotAsked
	After     time.Duration // when to try again, if the other side said so
	Err       error
}

// Error implements error.
func (f *Fault) Error() string { return f.Err.Error() }

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.Err }

// deviceFault classifies an error of a Device or Dialer.
func deviceFault(err error) *Fault {
	var refusal *DeviceError
	if !errors.As(err, &refusal) {
		f := &Fault{By: PartyDevice, Class: ClassUnreachable, Transient: true, Err: err}
		if errors.Is(err, ErrIdentity) {
			f.Class = ClassIdentity
		}
		return f
	}
	f := &Fault{By: PartyDevice, Class: ClassDevice, Err: err}
	switch refusal.Problem {
	case ProblemUnknown:
		f.Class, f.Uncounted = ClassSuperseded, true
	case ProblemUnverified:
		f.Class = ClassDeviceVerify
	case ProblemRolledBack:
		f.Class, f.Transient = ClassHook, true
	case ProblemFull:
		f.Class, f.Transient = ClassFull, true
	case ProblemConflict, ProblemUnavailable, ProblemReplaced, ProblemInternal:
		f.Class, f.Transient = ClassBusy, true
	}
	return f
}

// caFault classifies an error of a CA.
func caFault(err error) *Fault {
	var (
		later     *TryLater
		rejection *CARejection
		mismatch  *CAMismatch
	)
	switch {
	case errors.As(err, &mismatch):
		return &Fault{By: PartyCA, Class: ClassCAMismatch, Err: err}
	case errors.As(err, &rejection):
		return &Fault{By: PartyCA, Class: ClassCARejected, Err: err}
	case errors.As(err, &later):
		return &Fault{By: PartyCA, Class: ClassCAUnavail, Transient: true, After: later.After, Err: err}
	}
	return &Fault{By: PartyCA, Class: ClassCAUnavail, Transient: true, Err: err}
}
