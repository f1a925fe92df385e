package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/edgeclm/edgeclm/internal/alert"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// Notifier finds out what somebody should know, remembers what was told, and
// tells. Several processes may use one directory; one of them at a time works.
// It is used by one goroutine at a time too: another one finds it locked.
type Notifier struct {
	Dir        string // made on first use
	CLM        string // who tells
	Channels   []Channel
	Thresholds alert.Thresholds
	Policy     alert.Policy
	Now        func() time.Time
	Jitter     func() float64 // uniform in [0, 1)
	Log        *slog.Logger
	Files      keyfile.Files

	mu         sync.Mutex
	unrecorded map[receipt]bool // delivered, and the disk did not take it down
}

// receipt is of one message on one channel.
type receipt struct{ id, channel string }

func (n *Notifier) spool() spool { return spool{n.Dir, n.Files} }

// lock makes the directory, keeps others out (ErrLocked if somebody is in), and
// sweeps what a crash has left there.
func (n *Notifier) lock() (unlock func() error, err error) {
	if !n.mu.TryLock() {
		return nil, fmt.Errorf("lock the notifications: %w", keyfile.ErrLocked)
	}
	defer func() {
		if err != nil {
			n.mu.Unlock()
		}
	}()
	s := n.spool()
	if err := s.prepare(); err != nil {
		return nil, err
	}
	release, err := keyfile.Lock(filepath.Join(n.Dir, "lock"))
	if err != nil {
		return nil, err
	}
	if err := s.sweep(); err != nil {
		return nil, errors.Join(err, release())
	}
	return func() error {
		defer n.mu.Unlock()
		return release()
	}, nil
}

// Observe evaluates the facts, keeps what is to be told, and delivers what is
// due. Where another process is at it, it does nothing. Without channels it
// does nothing either, so that what is open is told once there is one. What
// could not be delivered is no error: it is logged and waits.
func (n *Notifier) Observe(ctx context.Context, now time.Time, f alert.Facts) (err error) {
	if len(n.Channels) == 0 {
		return nil
	}
	unlock, err := n.lock()
	if errors.Is(err, keyfile.ErrLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	tracker, err := n.load()
	if err != nil {
		return err
	}
	told := tracker.Sequence
	err = n.keep(tracker, now, f)
	if err == nil {
		told = tracker.Sequence
	}
	return errors.Join(err, n.deliver(ctx, told))
}

// keep stores what is to be told, and then that it is. A digest whose message
// is not kept stays to be told.
func (n *Notifier) keep(tracker *alert.Tracker, now time.Time, f alert.Facts) error {
	digest, changed := tracker.Update(now, alert.Evaluate(now, f, n.Thresholds), f.Unsure, n.Policy)
	if !digest.Empty() {
		id, err := newID()
		if err != nil {
			return err
		}
		m := NewMessage(id, n.CLM, digest)
		if err := n.spool().put(m, n.Channels, now); err != nil {
			return fmt.Errorf("keep a notification (%s): %w", m.Data.Subject, err)
		}
	}
	if !changed {
		return nil
	}
	return n.store(tracker)
}

// Deliver tries what is due, once. Where another process is at it, it does
// nothing.
func (n *Notifier) Deliver(ctx context.Context) (err error) {
	unlock, err := n.lock()
	if errors.Is(err, keyfile.ErrLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	tracker, err := n.load()
	if err != nil {
		return err
	}
	return n.deliver(ctx, tracker.Sequence)
}

// Result is what came of a test.
type Result struct {
	Channel string
	Err     error
}

// Test sends a test message at once through each channel, or through those of
// the named kind or name only; what fails is not kept.
func (n *Notifier) Test(ctx context.Context, channel string) ([]Result, error) {
	id, err := newID()
	if err != nil {
		return nil, err
	}
	m := testMessage(id, n.CLM, n.Now())
	var out []Result
	for _, c := range n.Channels {
		if name := c.Name(); channel == "" || channel == name || channel == kindOf(name) {
			out = append(out, Result{name, c.Send(ctx, m)})
		}
	}
	if channel != "" && len(out) == 0 {
		return nil, fmt.Errorf("no channel %q is configured", channel)
	}
	return out, nil
}
