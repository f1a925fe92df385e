// Package metrics says in Prometheus' terms how the fleet is: in a file for
// node_exporter's textfile collector, or to whoever asks over HTTP. What there
// is to say is a Snapshot, which the command line fills; it is no package's
// business where from. docs/metrics.md describes each metric.
package metrics

import (
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

// Snapshot is the fleet at one time, that of its Census. A zero time is
// something that is not known or has not happened: its metric is missing.
type Snapshot struct {
	Version  string // of the program
	Identity string // of the CLM

	Census   renewal.Census
	DueSince time.Time     // since when the first device waits for its renewal, whenever it is tried again
	Runway   time.Time     // when the first certificate would end if the CA stopped now
	Lifetime time.Duration // of the fleet's certificates, the shortest kind of them, as in alert.Facts; 0: not known

	Certificates *Certificates // nil: nobody has looked at them
	Authorities  []Authority   // of two with one name the first counts
	Events       []renewal.Count
	Steps        []renewal.Step // of two with one name the first counts
	Pass         Pass

	NotificationsWaiting int
	DeadLetters          int // notifications that were given up
}

// Authority is a CA.
type Authority struct {
	enrol.Breaker           // its CA is the value of the label ca: give no address with a password in it
	Role          string    // in-use, next, failover
	NotBefore     time.Time // of the pinned certificate that ends first
	NotAfter      time.Time
	Rate          float64 // requests a second that it may get; 0: any number
}

// Pass is the last time that somebody looked who is due, and renewed.
type Pass struct {
	At    time.Time // when it ended; zero: never, and the rest says nothing
	Took  time.Duration
	Count map[enrol.Outcome]int // devices
	OK    bool                  // no device failed, and the CA was there
}
