// Package notify tells people what package alert found: by a program of
// theirs, a signed webhook, or e-mail. What could not be delivered waits in a
// spool that survives crashes, and is given up, visibly, at last.
package notify

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Channel is one way to tell somebody.
type Channel interface {
	// Name is unique among the channels, and the same in each process: its kind
	// (exec, webhook, smtp), or kind:receiver where there may be several.
	Name() string
	// Send delivers a message. An error that wraps ErrFinal would come again
	// however often it is tried; a *Down stands for all channels of the kind, a
	// *TryLater says when to come back. Errors hold no secrets and no more than
	// a few hundred bytes.
	Send(ctx context.Context, m Message) error
}

// ErrFinal is wrapped when a message was refused for good.
var ErrFinal = errors.New("refused for good")

// Down is an error on the way to every receiver of a kind: no other of them
// need be tried now.
type Down struct{ Err error }

// Error implements error.
func (e *Down) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Down) Unwrap() error { return e.Err }

// kindOf returns the kind of a channel by its name.
func kindOf(name string) string {
	kind, _, _ := strings.Cut(name, ":")
	return kind
}

// TryLater is an error of a receiver that said when to come back.
type TryLater struct {
	After time.Duration
	Err   error
}

// Error implements error.
func (e *TryLater) Error() string { return fmt.Sprintf("%v (retry after %v)", e.Err, e.After) }

// Unwrap returns the cause.
func (e *TryLater) Unwrap() error { return e.Err }
