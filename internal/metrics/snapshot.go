// Package metrics says in Prometheus' terms how the fleet is: in a file for
// node_exporter's textfile collector, or to whoever asks over HTTP. What there
// is to say is a Snapshot, which the command line fills; it is no package's
// business where from.
package metrics

import (
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

// Snapshot is the fleet at one time.
type Snapshot struct {
	Version  string // of the program
	Identity string // of the CLM

	Census     renewal.Census
	Devices    []Device // with a certificate; in any order
	Authority  []Authority
	Events     []renewal.Count
	Steps      []renewal.Step
	Pass       Pass
	Waiting    int // notifications that wait
	DeadLetter int // and those that were given up
}

// Device is a device with a certificate.
type Device struct {
	Name       string
	NotAfter   time.Time
	RenewAt    time.Time
	EnrolledAt time.Time
}

// Authority is a CA.
type Authority struct {
	enrol.Breaker
	Role     string    // in-use, next, failover
	NotAfter time.Time // of the pinned certificate that ends first
	Rate     float64   // requests a second that it may get; 0: any number
}

// Pass is the last time that somebody looked who is due.
type Pass struct {
	At    time.Time // when it ended; zero: never
	Took  time.Duration
	Count map[enrol.Outcome]int // devices
	OK    bool
}
