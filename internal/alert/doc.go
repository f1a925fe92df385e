// Package alert says what somebody should know about a fleet, and when to tell
// them. It belongs to the core: it does no I/O, and its clock is handed in.
//
// Evaluate turns facts into alerts: what is wrong at this moment, grouped so
// that five hundred devices with one cause are one alert. A Tracker remembers
// from one moment to the next what is open and what was told of it, and says in
// a Digest what is new, what became worse, what goes on and what recovered.
package alert

import (
	"fmt"
	"time"
)

// Kind says what sort of thing is wrong.
type Kind string

// The kinds of alerts.
const (
	KindNoSuccess    Kind = "no-success"    // devices are due and nothing succeeds
	KindNeverReached Kind = "never-reached" // devices were commissioned and never heard of
	KindFailing      Kind = "failing"       // devices fail for longer than is good; one alert for each class of failure
	KindEnding       Kind = "ending"        // certificates end soon and were not renewed; likewise
	KindExpired      Kind = "expired"       // certificates have ended
	KindQuarantined  Kind = "quarantined"   // devices have used up their attempts (section V.B of the paper)
	KindRunway       Kind = "runway"        // the fleet would not outlast a failure of the CA
	KindCADown       Kind = "ca-down"       // a CA is not asked, since it did not work
	KindCAExpiry     Kind = "ca-expiry"     // a certificate of the CA, the RA or a trust anchor ends
	KindClock        Kind = "clock"         // our clock is in doubt
	KindDisk         Kind = "disk"          // little room is left for the inventory
	KindLock         Kind = "lock"          // a renewing run does not end
)

// Kinds returns every kind, for documentation and its test.
func Kinds() []Kind {
	return []Kind{
		KindNoSuccess, KindNeverReached, KindFailing, KindEnding, KindExpired, KindQuarantined,
		KindRunway, KindCADown, KindCAExpiry, KindClock, KindDisk, KindLock,
	}
}

// timed reports whether an alert of the kind is judged by our clock against
// times that others set, so that a wrong clock makes or hides it.
func (k Kind) timed() bool {
	switch k {
	case KindEnding, KindExpired, KindRunway, KindCAExpiry, KindNeverReached, KindNoSuccess, KindFailing, KindLock:
		return true
	}
	return false
}

// each reports whether every device that joins an alert of the kind is worth a
// word, not only many more.
func (k Kind) each() bool { return k == KindQuarantined || k == KindExpired }

// Severity is how much an alert matters.
type Severity int

// The severities. Critical: certificates end, or will before a working day is
// over, unless somebody acts.
const (
	Info Severity = iota
	Warning
	Critical
)

// String returns info, warning or critical.
func (s Severity) String() string {
	switch s {
	case Info:
		return "info"
	case Warning:
		return "warning"
	}
	return "critical"
}

// MarshalText implements encoding.TextMarshaler.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Severity) UnmarshalText(text []byte) error {
	for _, known := range []Severity{Info, Warning, Critical} {
		if string(text) == known.String() {
			*s = known
			return nil
		}
	}
	return fmt.Errorf("unknown severity %q", text)
}

// Alert is one thing that is wrong. Its texts are single lines without control
// characters, whatever a device or a CA said.
type Alert struct {
	Key      string    `json:"key"` // the same as long as it is the same thing
	Kind     Kind      `json:"kind"`
	Severity Severity  `json:"severity"`
	Subject  string    `json:"subject"`           // what it is about: a CA, a class of failure, the fleet
	Summary  string    `json:"summary"`           // what is the matter, one line
	Hint     string    `json:"hint"`              // what to do, with the command
	Since    time.Time `json:"since,omitzero"`    // zero: not known
	Count    int       `json:"count"`             // of the devices that it is about; 0: it is not about devices
	Devices  []string  `json:"devices,omitempty"` // at most MaxDevices of them, sorted
}

// aboutDevices reports whether an alert of the kind stands for devices that an
// alert of another kind or class may stand for next.
func (k Kind) aboutDevices() bool {
	return k == KindFailing || k == KindEnding || k == KindExpired || k == KindQuarantined
}

// MaxDevices bounds the devices that one alert names.
const MaxDevices = 100
