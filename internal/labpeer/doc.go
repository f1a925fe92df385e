// Package labpeer finds and runs programs that edgeclm is tried against: real
// certification authorities on this machine's loopback. It serves tests and
// the demo; no other part of the product uses it.
package labpeer
