package enrol

import (
	"context"
	"slices"
	"time"

	"github.com/edgeclm/edgeclm/internal/fleet"
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
// all processes that work on an inventory know the same. A zero State is closed.
type Breaker struct {
	CA    string
	State BreakerState

	Strikes    int        // devices in a row that found the CA unavailable
	Rejected   []string   // devices that it has rejected since its last success; bounded
	Mismatched []Mismatch // devices to which its answers did not fit since its last success; bounded
	Opened     int        // times in a row that it opened; the wait grows with them
	OpenedAt   time.Time  // when it opened last; zero while it is closed
	Until      time.Time  // until when nobody asks the CA; half-open: nobody else; zero while it is closed
	Class      Class      // of what opened it
	Probing    string     // the device with which it is tried while half-open; "": none at the moment

	LastSuccess time.Time     // zero: none on record; up to a minute old
	LastFailure time.Time     // zero: none on record
	LastError   string        // of the last failure
	Latency     time.Duration // of its answers, smoothed
}

// Mismatch is a device that got an authenticated answer which did not fit.
type Mismatch struct {
	Device string    `json:"device"`
	At     time.Time `json:"at"`
}

const (
	// probeTime is how long one device may take to find out whether the CA
	// answers again; then the next one may try. It covers the key pair of a
	// slow device and the CA's timeout.
	probeTime = 3 * time.Minute
	// successEvery is how often a CA's success is written down if nothing else
	// changes, so that it costs no write of its own for each enrolment.
	successEvery = time.Minute
)

// Allows reports whether the CA may be asked at now; if not, until when. With
// probe, whoever asks has to be the only one: see Probe. An open breaker whose
// times lie in the future was written by a clock that was wrong, and does not
// hold.
func (b Breaker) Allows(now time.Time) (ok bool, until time.Time, probe bool) {
	switch b.State {
	case BreakerOpen:
		if !now.Before(b.OpenedAt) && now.Before(b.Until) {
			return false, b.Until, false
		}
		return true, time.Time{}, true
	case BreakerHalfOpen:
		if fleet.Waits(b.Until, now, probeTime) {
			return false, b.Until, false
		}
		return true, time.Time{}, true
	}
	return true, time.Time{}, false
}

// Probe makes a device the one that finds out whether the CA answers again. It
// is false if somebody else does or if it is too early. A closed breaker is
// left as it is.
func (b *Breaker) Probe(now time.Time, device string) bool {
	ok, _, probe := b.Allows(now)
	if ok && probe {
		b.State, b.Until, b.Probing = BreakerHalfOpen, now.Add(probeTime), device
	}
	return ok
}

// Release lets another device find out, since this one did not get to ask the
// CA. It reports whether anything changed.
func (b *Breaker) Release(device string) bool {
	if b.State != BreakerHalfOpen || b.Probing != device {
		return false
	}
	b.Until, b.Probing = time.Time{}, ""
	return true
}

// Succeeded takes down that the CA has issued a certificate that fits, and how
// long its answer took. It reports whether that is worth a write.
func (b *Breaker) Succeeded(now time.Time, took time.Duration) bool {
	since := now.Sub(b.LastSuccess)
	if b.closed() && b.Strikes == 0 && len(b.Rejected)+len(b.Mismatched) == 0 && since >= 0 && since < successEvery {
		return false
	}
	b.close()
	b.Opened, b.Rejected, b.Mismatched, b.LastSuccess = 0, nil, nil, now
	if b.Latency == 0 {
		b.Latency = took
	}
	b.Latency += (took - b.Latency) / 4
	return true
}

// Answered takes down that the CA has answered, though not with a certificate
// that says that all is well: it may be asked again. What its rejections and
// unfitting answers have added up to stays. It reports whether anything changed.
func (b *Breaker) Answered() bool {
	if b.closed() && b.Strikes == 0 {
		return false
	}
	b.close()
	return true
}

// Failed takes down that a device did not get a certificate since the CA could
// not be had, rejected the request or gave an answer that does not fit; faults
// of other classes are none of the CA's. It reports whether the failure is to
// be blamed on the CA and not on the device: when several devices had the same.
func (b *Breaker) Failed(now time.Time, device string, f *Fault, p Policy) (blamed bool) {
	var opens bool
	switch f.Class {
	case ClassCAUnavail:
		b.Strikes++
		opens = b.State == BreakerHalfOpen || p.BreakerStrikes > 0 && b.Strikes >= p.BreakerStrikes
	case ClassCARejected:
		b.Strikes = 0
		if !slices.Contains(b.Rejected, device) && len(b.Rejected) < p.BreakerRejected {
			b.Rejected = append(b.Rejected, device)
		}
		blamed = p.BreakerRejected > 0 && len(b.Rejected) >= p.BreakerRejected
		opens = blamed || b.reopens()
	case ClassCAMismatch, ClassCLMVerify:
		b.Strikes = 0
		b.mismatch(now, device, p)
		// Who finds out that it goes on has no fault in it either, whoever it is.
		again := b.State == BreakerHalfOpen && (b.Class == ClassCAMismatch || b.Class == ClassCLMVerify)
		blamed = p.BreakerDevice > 0 && (again || len(b.Mismatched) >= p.BreakerDevice)
		opens = blamed || b.reopens()
	default:
		return false
	}
	b.LastFailure, b.LastError = now, f.Error()
	switch ok, _, _ := b.Allows(now); {
	case !opens && f.Class != ClassCAUnavail:
		b.close()
	case opens && (ok || b.State == BreakerHalfOpen):
		b.open(now, f, p)
	}
	return blamed
}

// reopens reports whether an answer that is no certificate keeps the breaker from
// closing. One that was opened since nobody answered does close: somebody has.
func (b *Breaker) reopens() bool { return b.State == BreakerHalfOpen && b.Class != ClassCAUnavail }

// mismatch keeps the devices of the breaker's window. What is recorded in the
// future was recorded by a clock that was wrong, and counts no more.
func (b *Breaker) mismatch(now time.Time, device string, p Policy) {
	b.Mismatched = slices.DeleteFunc(b.Mismatched, func(m Mismatch) bool {
		return m.Device == device || m.At.After(now) || now.Sub(m.At) > p.BreakerWindow
	})
	b.Mismatched = append(b.Mismatched, Mismatch{device, now})
	if surplus := len(b.Mismatched) - max(1, p.BreakerDevice); surplus > 0 {
		b.Mismatched = slices.Delete(b.Mismatched, 0, surplus)
	}
}

func (b *Breaker) closed() bool { return b.State != BreakerOpen && b.State != BreakerHalfOpen }

func (b *Breaker) close() {
	b.State, b.Strikes, b.OpenedAt, b.Until, b.Class, b.Probing = BreakerClosed, 0, time.Time{}, time.Time{}, "", ""
}

// open keeps everybody off the CA, for twice as long as the last time; longer
// if the CA says so.
func (b *Breaker) open(now time.Time, f *Fault, p Policy) {
	wait := p.BreakerFirst
	for n := 0; n < b.Opened && wait < p.BreakerLongest; n++ {
		wait *= 2
	}
	wait = min(max(wait, f.After), p.BreakerLongest)
	b.Opened++
	b.State, b.OpenedAt, b.Until, b.Class, b.Probing = BreakerOpen, now, now.Add(wait), f.Class, ""
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
