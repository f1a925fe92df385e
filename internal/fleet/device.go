// Package fleet describes the devices of a plant: their names, labels and
// certificate profiles, and when a certificate is due for renewal. It is pure.
package fleet

import (
	"time"

	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Device is one row of the inventory.
type Device struct {
	Name     string
	Identity ibc.Identity // the earliest that is accepted: the latest one that it proved, or that a manifest calls for
	Next     ibc.Identity // later than Identity: of the bundle that waits to be handed over; zero for none
	// PublicKey is Q of Identity, where it is on record; nil: work it out, which
	// costs a hash to the curve.
	PublicKey []byte
	Address   string // host:port; a hint, the identity is the truth
	Asset     string // the place or machine that it serves; "": none yet
	Labels    map[string]string
	Names     []Name // what the device may sign for; empty: DefaultNames

	Paused         bool
	Quarantined    bool
	Decommissioned time.Time // since when it is out of service; zero: it is in service

	Certificate *Certificate // the active one; nil if none was ever activated
	EnrolledAt  time.Time    // when Certificate was activated; zero if never
	RenewAt     time.Time    // decided once per certificate; zero without one

	Attempts    int       // failed enrolments since the last success
	NextAttempt time.Time // no enrolment is tried before; zero: at once
	LastError   string
}

// Certificate is what the inventory says about an X.509 certificate.
type Certificate struct {
	Serial    string // hex of its bytes, lower case
	Subject   string // RFC 4514
	Issuer    string // RFC 4514
	NotBefore time.Time
	NotAfter  time.Time
	SHA256    [32]byte // of the DER
}

// State is the flag of the paper's inventory (section IV.A).
type State string

// A device in service is operational while it owns a valid certificate.
const (
	NotOperational State = "not-operational"
	Operational    State = "operational"
)

// State returns the device's flag at a time: it is derived, so that it falls
// back when the certificate expires though nobody runs.
func (d Device) State(now time.Time) State {
	if d.InService() && d.Certificate != nil && now.Before(d.Certificate.NotAfter) {
		return Operational
	}
	return NotOperational
}

// InService reports whether the device was not decommissioned.
func (d Device) InService() bool { return d.Decommissioned.IsZero() }

// HasLabels reports whether the device has every one of these labels.
func (d Device) HasLabels(want map[string]string) bool {
	for k, v := range want {
		if got, ok := d.Labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// CertificateNames returns the names that the device signs for by default.
func (d Device) CertificateNames() []Name {
	if len(d.Names) > 0 {
		return d.Names
	}
	return DefaultNames(d.Name)
}

// Due reports whether the certificate should be renewed at now: there is none,
// it has expired, or its renewal time has come. One that is decommissioned never
// is.
func (d Device) Due(now time.Time) bool {
	if !d.InService() {
		return false
	}
	if d.State(now) == NotOperational {
		return true
	}
	return !Waits(d.RenewAt, now, d.Certificate.NotAfter.Sub(d.Certificate.NotBefore))
}

// Tried reports whether an enrolment was ever tried, as far as the row says. A
// device that never was is for an operator to begin with, and never due by
// itself.
func (d Device) Tried() bool { return d.Certificate != nil || d.LastError != "" }
