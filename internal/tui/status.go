package tui

import (
	"time"

	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

// status is what the table says of a device in one word: of all that is true of
// it, what an operator should know first.
type status uint8

// The statuses, in the order of the operator's attention.
const (
	quarantined status = iota
	expired
	failing
	unenrolled
	due
	operational
	paused
	statuses // how many there are
)

// String returns the word, which state: of the filter takes as well.
func (s status) String() string {
	switch s {
	case quarantined:
		return "quarantined"
	case expired:
		return "expired"
	case failing:
		return "failing"
	case unenrolled:
		return "not enrolled"
	case due:
		return "due"
	case operational:
		return "operational"
	case paused:
		return "paused"
	}
	return "unknown"
}

// statusOf returns the device's word at a time.
func statusOf(r *renewal.Row, now time.Time) status {
	for _, s := range []status{quarantined, paused, expired, failing, unenrolled, due} {
		if is(r, s, now) {
			return s
		}
	}
	return operational
}

// is reports whether a word is true of the device at a time; several may be.
// They are the census's: its counts and the filter's results agree.
func is(r *renewal.Row, s status, now time.Time) bool {
	owns := !r.NotAfter.IsZero()
	valid := owns && now.Before(r.NotAfter)
	switch s {
	case quarantined:
		return r.Quarantined
	case paused:
		return r.Paused
	case expired:
		return owns && !valid
	case failing:
		return r.LastError != ""
	case unenrolled:
		return !owns
	case due:
		return !r.Paused && !r.Quarantined && isDue(r, now)
	case operational:
		return valid
	}
	return false
}

// isDue reports whether the loop would work on the device now.
func isDue(r *renewal.Row, now time.Time) bool {
	lifetime := r.NotAfter.Sub(r.NotBefore)
	if fleet.Waits(r.NextAttempt, now, max(lifetime, day)) {
		return false
	}
	return !now.Before(r.NotAfter) || !fleet.Waits(r.RenewAt, now, lifetime)
}
