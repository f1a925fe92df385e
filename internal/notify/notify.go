// Package notify tells people what package alert found: by a program of
// theirs, a signed webhook, or e-mail. What could not be delivered waits in a
// spool that survives crashes, and is given up, visibly, at last.
package notify

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Channel is one way to tell somebody.
type Channel interface {
	// Name is unique among the channels: exec, webhook, smtp.
	Name() string
	// Send delivers a message. An error that wraps ErrFinal would come again
	// however often it is tried; a *TryLater says when to come back. Errors
	// hold no secrets and no more than a few hundred bytes.
	Send(ctx context.Context, m Message) error
}

// ErrFinal is wrapped when a message was refused for good.
var ErrFinal = errors.New("refused for good")

// TryLater is an error of a receiver that said when to come back.
type TryLater struct {
	After time.Duration
	Err   error
}

// Error implements error.
func (e *TryLater) Error() string { return fmt.Sprintf("%v (retry after %v)", e.Err, e.After) }

// Unwrap returns the cause.
func (e *TryLater) Unwrap() error { return e.Err }
