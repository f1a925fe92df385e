package enrol

import (
	"context"
	"time"
)

// BreakerState says whether a CA is asked.
type BreakerState string

// The states of a breaker. Half-open lets one device at a time through, to
// find out.
const (
	BreakerClosed   BreakerState = "closed"
	BreakerOpen     BreakerState = "open"
	BreakerHalfOpen BreakerState = "half-open"
)

// Breaker is what is known of one CA's health. It is kept by the store, so that
// all processes that work on an inventory know the same.
type Breaker struct {
	CA    string
	State BreakerState

	Strikes  int       // devices in a row that found the CA unavailable
	Rejected []string  // devices that it has rejected since its last success; bounded
	Opened   int       // times in a row that it opened; the wait grows with them
	OpenedAt time.Time // when it opened last; zero while it is closed
	Until    time.Time // until when nobody asks the CA; zero while it is closed
	Class    Class     // of what opened it

	LastSuccess time.Time     // zero: none on record
	LastFailure time.Time     // zero: none on record
	LastError   string        // of the last failure
	Latency     time.Duration // of its answers, smoothed
}

// HealthStore keeps the breakers of the CAs.
type HealthStore interface {
	// Breaker returns what is known of a CA; a closed one with nothing on record
	// if there is nothing.
	Breaker(ctx context.Context, ca string) (Breaker, error)
	// UpdateBreaker changes what is known of a CA, in one transaction, unless
	// change reports that nothing changed.
	UpdateBreaker(ctx context.Context, ca string, change func(*Breaker) bool) (Breaker, error)
}

// Gate keeps all processes together within what a CA is to be asked.
type Gate interface {
	// Enter waits until the CA may be asked, and returns what must be called
	// when it has answered. If that would take too long it returns a *TryLater.
	Enter(ctx context.Context, ca string) (leave func(), err error)
}
