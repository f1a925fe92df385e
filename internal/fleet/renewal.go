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

// DefaultWindow renews between 33 % and 48 % of the lifetime: a CA outage of
// half the lifetime then expires nobody. The last two hundredths are for finding
// out that the CA is back, and for the backlog.
func DefaultWindow() Window { return Window{From: 0.33, To: 0.48} }

// RenewAt decides, once per certificate, when it is due, without regard to the
// rest of the fleet. The time counts from its receipt, since a CA may backdate
// NotBefore; it never exceeds the certificate's own lifetime, since our clock
// may be behind by years. Devices spread over the window by a hash of name and
// certificate, so that a fleet commissioned in one hour does not renew in one.
func (w Window) RenewAt(device string, c Certificate, received time.Time) time.Time {
	lifetime := c.Lifetime(received)
	if lifetime <= 0 {
		return received
	}
	point, _ := spread(device, c)
	return received.Add(time.Duration(float64(lifetime) * (w.From + (w.To-w.From)*point)))
}

// Lifetime is how long the certificate may serve from its receipt on; never
// longer than the CA made it for. It is not positive for one that had ended.
func (c Certificate) Lifetime(received time.Time) time.Duration {
	return min(c.NotAfter.Sub(received), c.NotAfter.Sub(c.NotBefore))
}

// spread returns two numbers in [0, 1) that are as good as random over devices
// and certificates, and always the same for one.
func spread(device string, c Certificate) (float64, float64) {
	sum := sha256.Sum256(append([]byte(device), c.SHA256[:]...))
	unit := func(b []byte) float64 { return float64(binary.BigEndian.Uint64(b)>>11) / (1 << 53) }
	return unit(sum[:8]), unit(sum[8:16])
}

// Waits reports whether a stored time is still ahead. One that lies further
// ahead than its schedule ever allows was written by a clock that was wrong,
// and counts as now.
func Waits(until, now time.Time, longest time.Duration) bool {
	return until.After(now) && until.Sub(now) <= longest
}
