package enrol

import (
	"time"

	"github.com/edgeclm/edgeclm/internal/fleet"
)

// Policy is what an operator decides about enrolments.
type Policy struct {
	MaxAttempts   int           // counted failures before a device is quarantined
	Floor         time.Duration // least time between two requests to the CA for one device; less for certificates of less than a day
	ConfirmWithin time.Duration // how long a device waits for its confirmation
	RetryFirst    time.Duration // wait after the first time that a device with a certificate of a day is unreachable; doubles with each
	RetryLongest  time.Duration // up to this
	Poll          time.Duration // wait after PENDING, unless the CA says
	HookTries     int           // activations undone by a failing hook, or not served, before the enrolment ends
	Window        fleet.Window  // when a certificate is renewed

	// What opens a CA's breaker, and for how long. A number of 0 opens it never.
	BreakerDevice   int           // devices with an unfitting answer
	BreakerWindow   time.Duration // within this time
	BreakerStrikes  int           // devices in a row that found the CA unavailable
	BreakerRejected int           // devices that it rejected, and accepted none in between
	BreakerFirst    time.Duration // for how long, the first time; doubles with each further one; less for short lives
	BreakerLongest  time.Duration // up to this; less for short lives
}

// DefaultPolicy suits certificates of a day and more.
func DefaultPolicy() Policy {
	return Policy{
		MaxAttempts: 3, Floor: 10 * time.Minute, ConfirmWithin: 10 * time.Minute,
		RetryFirst: time.Minute, RetryLongest: time.Hour, Poll: 5 * time.Minute, HookTries: 3,
		Window:        fleet.DefaultWindow(),
		BreakerDevice: 2, BreakerWindow: 24 * time.Hour, BreakerStrikes: 3, BreakerRejected: 3,
		BreakerFirst: time.Minute, BreakerLongest: 10 * time.Minute,
	}
}

// LongestWait is the furthest ahead that any stored time of a retry can lie.
func (p Policy) LongestWait() time.Duration {
	return 2 * max(largestScale*largestFactor*p.RetryLongest, p.Floor, p.Poll)
}

// Waiting reports whether the device's next try is still ahead at now.
func (p Policy) Waiting(d fleet.Device, now time.Time) bool {
	return fleet.Waits(d.NextAttempt, now, p.LongestWait())
}
