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
// its receipt, since a CA may backdate NotBefore; devices spread over the
// window by a hash of name and certificate, so that a fleet commissioned in
// one hour does not renew in one.
func (w Window) RenewAt(device string, certificate [32]byte, received, notAfter time.Time) time.Time {
	lifetime := notAfter.Sub(received)
	if lifetime <= 0 {
		return received
	}
	sum := sha256.Sum256(append([]byte(device), certificate[:]...))
	unit := float64(binary.BigEndian.Uint64(sum[:8])>>11) / (1 << 53)
	return received.Add(time.Duration(float64(lifetime) * (w.From + (w.To-w.From)*unit)))
}
