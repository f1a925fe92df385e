package enrol

import (
	"context"
	"time"

	"github.com/edgeclm/edgeclm/internal/fleet"
)

// Store keeps the inventory and the enrolments. Commit is durable when it
// returns.
type Store interface {
	// Device returns the row of a device, or an error that wraps ErrNotFound.
	Device(ctx context.Context, name string) (fleet.Device, error)
	// OpenEnrolment returns the device's enrolment that is in no final state,
	// or an error that wraps ErrNotFound. There is at most one.
	OpenEnrolment(ctx context.Context, device string) (*Enrolment, error)
	// Commit stores a change in one transaction, or nothing of it. An error
	// that wraps ErrConflict says that the enrolment's revision is not the
	// stored one, or that the device has another open enrolment, one that wraps
	// ErrDecommissioned that the device is out of service. It raises
	// Enrolment.Revision on success.
	Commit(ctx context.Context, c Change) error
	// SerialOwner returns the enrolment for which the issuer (DER of its name)
	// has issued a serial number (hex) before, or an error that wraps
	// ErrNotFound.
	SerialOwner(ctx context.Context, issuer []byte, serial string) (ID, error)
	// EnrolmentByCertificate returns the first enrolment, of whatever device,
	// for which a certificate (by its SHA-256) was issued, or an error that
	// wraps ErrNotFound. It may have got another certificate since.
	EnrolmentByCertificate(ctx context.Context, certificate [32]byte) (*Enrolment, error)
	// Lease makes this process the only one that works on the device until
	// release is called or the process dies; or an error that wraps ErrLeased.
	Lease(ctx context.Context, device string) (release func(), err error)
}

// Change is what one transaction stores.
type Change struct {
	Enrolment *Enrolment
	// Device is nil if the row does not change. Of a row only what an
	// enrolment decides is stored: Identity (if later than the stored one),
	// Quarantined (if set), Certificate, EnrolledAt, RenewAt, Attempts,
	// NextAttempt and LastError.
	Device *fleet.Device
	Events []Event
}

// Event is one line of a device's history.
type Event struct {
	At        time.Time
	Device    string
	Enrolment ID
	State     State // in which it happened
	Kind      EventKind
	Class     Class         // of a failure
	By        Party         // of a failure
	Message   string        // in words; no secrets
	Took      time.Duration // of the effect
}

// EventKind says what an event is about.
type EventKind string

// The kinds of event.
const (
	EventProgress    EventKind = "progress"    // a state was left by its effect
	EventRetry       EventKind = "retry"       // a transient failure, the state is kept
	EventCompleted   EventKind = "completed"   // the certificate is active and confirmed
	EventFailed      EventKind = "failed"      // the enrolment ended
	EventServed      EventKind = "served"      // a handshake has shown that the certificate is served
	EventRolledBack  EventKind = "rolled-back" // the device uses its previous certificate again
	EventWarning     EventKind = "warning"     // worth a look
	EventQuarantined EventKind = "quarantined" // the device's attempts are used up

	EventQueued       EventKind = "queued"        // something waits to be handed over
	EventDelivered    EventKind = "delivered"     // the device has it
	EventNotDelivered EventKind = "not-delivered" // it was not taken, and waits on
)

// EventKinds returns every kind of event, in the order above.
func EventKinds() []EventKind {
	return []EventKind{
		EventProgress, EventRetry, EventCompleted, EventFailed, EventServed, EventRolledBack, EventWarning, EventQuarantined,
		EventQueued, EventDelivered, EventNotDelivered,
	}
}
