package tui

import (
	"context"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

// Source is the inventory as the dashboard reads it. Calls come from several
// goroutines; each has a deadline.
type Source interface {
	// Census counts the fleet.
	Census(ctx context.Context) (renewal.Census, error)
	// Rows returns the next rows by name after one ("": from the first), at
	// most limit; fewer only at the end.
	Rows(ctx context.Context, after string, limit int) ([]renewal.Row, error)
	// RowsOf returns the rows of these devices, in any order; those that do not
	// exist are left out.
	RowsOf(ctx context.Context, names []string) ([]renewal.Row, error)
	// Entries returns the events after one, oldest first, at most limit.
	Entries(ctx context.Context, after int64, limit int) ([]renewal.Entry, error)
	// LastEntry returns the ID of the newest event; 0: there is none.
	LastEntry(ctx context.Context) (int64, error)
	// Renewals counts the certificates that become due in each of n steps.
	Renewals(ctx context.Context, from time.Time, step time.Duration, n int) ([]int, error)
	// CAs returns what is known of the CAs in use, in failover order.
	CAs(ctx context.Context) ([]enrol.Breaker, error)
	// Detail returns what the detail pane shows; an error that wraps
	// enrol.ErrNotFound for an unknown device.
	Detail(ctx context.Context, name string) (Detail, error)
}

// Detail is what is known about one device. The lists are bounded by who makes
// them, newest first.
type Detail struct {
	Device       fleet.Device
	Events       []enrol.Event
	Enrolments   []*enrol.Enrolment
	Certificates []Certificate
	Deliveries   []enrol.Delivery // that wait
}

// Certificate is a certificate that a device owns or owned.
type Certificate struct {
	fleet.Certificate
	Active bool
}

// Act does something to devices, by name; reason is in the operator's words and
// may be empty. An error says how far it came.
type Act func(ctx context.Context, names []string, reason string) error

// Actions is what an operator may do from the dashboard; nil: not on offer.
type Actions struct {
	// Renew has the loop of this process take the devices next, as clmctl renew
	// --force does: retry times and the issuance floor do not hold them back.
	// Paused and quarantined ones are not among the names.
	Renew   Act
	Pause   Act
	Resume  Act
	Release Act // from quarantine; reason is never empty
}

// Role is what this process does beside showing.
type Role struct {
	Renewing bool   // it runs the renewal loop
	ReadOnly bool   // it changes nothing at all (--view)
	Why      string // it does not renew: "process 4711 renews since 08:00"
}

// words says the role in the header.
func (r Role) words() string {
	switch {
	case r.Renewing:
		return "renewing"
	case r.Why != "":
		return "viewing: " + r.Why
	case r.ReadOnly:
		return "viewing (--view)"
	}
	return "viewing"
}
