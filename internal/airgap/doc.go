// Package airgap cuts this process off, and tells whether the machine around it
// is cut off too (Linux).
//
// Isolate is for good: from then on no thread of the process can make or use a
// socket, reach into another process or start a program; no core is dumped, no
// debugger attaches, and memory does not go to a swap area where the system
// lets it be locked. Read says what about the machine speaks against opening a
// secret on it. Neither can undo a machine that somebody else controls already.
package airgap

import "errors"

// Sentinels.
var (
	// ErrDenial is wrapped when the process could not be cut off.
	ErrDenial = errors.New("this process cannot be cut off from networks")
	// ErrInherited is wrapped when standard input, output or error is a network
	// connection.
	ErrInherited = errors.New("it was given a network connection")
	// ErrNotLocked is wrapped when memory cannot be locked.
	ErrNotLocked = errors.New("memory is not locked")
)
