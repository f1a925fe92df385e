package fleet

import (
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// Window is the part of a certificate's lifetime in which it is renewed, as
// fractions of the time between its receipt and its end.
type Window struct {
	From, To float64
}

// DefaultWindow renews between 33 % and 50 % of the lifetime: a CA outage of
// half the lifetime then expires nobody.
func DefaultWindow() Window { return Window{From: 0.33, To: 0.50} }

// RenewAt decides, once per certificate, when it is due. The time counts from
// its receipt, since a CA may backdate NotBefore; it never exceeds the
// certificate's own lifetime, since our clock may be behind by years. Devices
// spread over the window by a hash of name and certificate, so that a fleet
// commissioned in one hour does not renew in one.
func (w Window) RenewAt(device string, c Certificate, received time.Time) time.Time {
	lifetime := min(c.NotAfter.Sub(received), c.NotAfter.Sub(c.NotBefore))
	if lifetime <= 0 {
		return received
	}
	sum := sha256.Sum256(append([]byte(device), c.SHA256[:]...))
	unit := float64(binary.BigEndian.Uint64(sum[:8])>>11) / (1 << 53)
	return received.Add(time.Duration(float64(lifetime) * (w.From + (w.To-w.From)*unit)))
}

// Waits reports whether a stored time is still ahead. One that lies further
// ahead than its schedule ever allows was written by a clock that was wrong,
// and counts as now.
func Waits(until, now time.Time, longest time.Duration) bool {
	return until.After(now) && until.Sub(now) <= longest
}
