package renewal

import (
	"context"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
)

// Job is a device that is due.
type Job struct {
	Device   string
	NotAfter time.Time // the end of its present certificate; zero: it has none
	Due      time.Time // since when; zero: for ever
	Failing  bool      // its last try failed
	Force    bool      // somebody wants it now, whatever its times of the next try say
}

// Queue is what the loop needs of the inventory.
type Queue interface {
	// DueJobs returns the devices that should be worked on at now.
	DueJobs(ctx context.Context, now time.Time) ([]Job, error)
	// NextDue returns the time before which no device becomes due that is not
	// due at now; the zero time if none ever will by itself.
	NextDue(ctx context.Context, now time.Time) (time.Time, error)
}

// Census is the fleet in numbers.
type Census struct {
	At            time.Time
	Total         int
	Operational   int // own a valid certificate
	Expired       int // owned one
	NeverEnrolled int // own none and never did, as far as the inventory says
	Due           int // would be worked on now
	Failing       int // their last try failed
	Quarantined   int
	Paused        int
	Unfinished    int // have an enrolment in no final state

	// The valid certificate that ends first, of a device that is neither
	// paused nor quarantined: how long the fleet lasts if the CA stopped now.
	FirstExpiry    time.Time // zero: there is none
	FirstExpiring  string
	LastSuccess    time.Time // the last completed enrolment of any device; zero: none
	LastTry        time.Time // the last enrolment that was worked on; zero: none
	NextDue        time.Time // as of Queue
	NeverReached   int       // were commissioned and never proved their identity here
	UnreachedSince time.Time // since when the first of these waits
}

// Entry is an event with its place in the inventory's history.
type Entry struct {
	ID int64 // rises
	enrol.Event
}
