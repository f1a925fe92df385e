// Package conformance says what a device gets wrong of docs/protocol.md, rule
// by rule. It is a second reading of that document: nothing of the product's
// own channel is used, so a fault of it is not inherited.
//
// Nothing that a device does for its plant changes: no certificate is staged or
// activated on a device that has trust anchors, no confirmation is ever sent.
// Requests about enrolments name one that nobody began. Only if asked to
// (Target.Slot) the test opens the device's pending slot, and leaves it to the
// CLM name that it speaks for; see slot.go.
//
// Where to look:
//
//	conformance.go   what is tested, and what comes of it
//	channel.go       DTLS, watched datagram by datagram
//	exchange.go      CoAP messages
//	binding.go       the device's binding certificate
//	handshake.go, coap.go, blocks.go, payload.go, status.go, slot.go
//	                 the rules, by subject
package conformance
