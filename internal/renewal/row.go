package renewal

import (
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
)

// Row is a device in a list: what is known of it without reading its keys and
// certificates.
type Row struct {
	Name        string
	Address     string
	Asset       string
	Labels      map[string]string // shared with other rows: not to be changed
	Paused      bool
	Quarantined bool
	NotBefore   time.Time
	NotAfter    time.Time // zero: it owns no certificate
	EnrolledAt  time.Time // when it got its certificate; zero: not known
	RenewAt     time.Time
	NextAttempt time.Time
	Attempts    int
	LastError   string
}

// Count is how often something happened since the inventory began.
type Count struct {
	Kind  enrol.EventKind
	Class enrol.Class // "" where nothing failed
	N     uint64
}

// StepTotal is the name of the Step that is the whole enrolment.
const StepTotal = "total"

// Step is how long a step of the enrolments took that were completed.
type Step struct {
	Name    string // as the paper has it, section VII.B, or StepTotal
	N       uint64
	Sum     time.Duration
	Buckets map[time.Duration]uint64 // how many took up to so long
}
