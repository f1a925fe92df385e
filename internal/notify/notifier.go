package notify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/edgeclm/edgeclm/internal/alert"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// maxState bounds the file of the open alerts.
const maxState = 4 << 20

// Notifier finds out what somebody should know, remembers what was told, and
// tells. Several processes may use one directory; one of them at a time works.
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
}

// Counts are the messages that wait, and those that were given up and are kept.
type Counts struct {
	Waiting int
	Dead    int
}

func (n *Notifier) spool() spool { return spool{n.Dir, n.Files} }

// lock makes the directory and keeps others out; ErrLocked if somebody is in.
func (n *Notifier) lock() (unlock func() error, err error) {
	if err := n.spool().prepare(); err != nil {
		return nil, err
	}
	return keyfile.Lock(filepath.Join(n.Dir, "lock"))
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
	digest, changed := tracker.Update(now, alert.Evaluate(now, f, n.Thresholds), f.Unsure, n.Policy)
	if !digest.Empty() {
		id, err := newID()
		if err != nil {
			return err
		}
		if err := n.spool().put(NewMessage(id, n.CLM, digest), n.Channels, now); err != nil {
			return fmt.Errorf("keep a notification: %w", err)
		}
	}
	if changed {
		if err := n.store(tracker); err != nil {
			return err
		}
	}
	return n.deliver(ctx, tracker.Sequence)
}

// Deliver tries what is due, once.
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

func (n *Notifier) statePath() string { return filepath.Join(n.Dir, "alerts.json") }

// load reads the open alerts. A file that is damaged is set aside: to be told
// again is better than never.
func (n *Notifier) load() (*alert.Tracker, error) {
	data, err := keyfile.Read(n.statePath(), maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return n.fresh()
	}
	if err != nil {
		return nil, fmt.Errorf("read the open alerts: %w", err)
	}
	tracker, err := alert.Parse(data)
	if err == nil || errors.Is(err, alert.ErrVersion) {
		return tracker, err
	}
	n.Log.Error("the open alerts are damaged, what is open is told again", "file", n.statePath(), "error", err)
	if err := n.spool().setAside(n.Dir, filepath.Base(n.statePath())); err != nil {
		return nil, err
	}
	return n.fresh()
}

// fresh begins after what is in the spool, and is stored at once: else the first
// message, kept before the tracker is, could not be told from one that was told.
func (n *Notifier) fresh() (*alert.Tracker, error) {
	tracker := &alert.Tracker{}
	for _, dir := range []string{n.spool().queue(), n.spool().dead()} {
		list, err := names(dir)
		if err != nil {
			return nil, err
		}
		for _, name := range list {
			var sequence uint64
			if _, err := fmt.Sscanf(name, "%d.json", &sequence); err == nil {
				tracker.Sequence = max(tracker.Sequence, sequence)
			}
		}
	}
	return tracker, n.store(tracker)
}

func (n *Notifier) store(tracker *alert.Tracker) error {
	data, err := tracker.Bytes()
	if err == nil {
		err = n.Files.WriteDurable(n.statePath(), data, keyfile.SecretPerm)
	}
	if err != nil {
		return fmt.Errorf("keep the open alerts: %w", err)
	}
	return nil
}

// deliver tries what is due. What lies beyond the sequence was never taken down
// as told, and will be replaced.
func (n *Notifier) deliver(ctx context.Context, sequence uint64) error {
	s := n.spool()
	list, err := names(s.queue())
	if err != nil {
		return fmt.Errorf("list the notifications: %w", err)
	}
	down := map[string]bool{} // channels that failed just now are left alone
	for i, name := range list {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if name > itemName(sequence) {
			break
		}
		it, err := s.read(s.queue(), name)
		if err != nil {
			n.Log.Error("a notification is damaged and set aside", "error", err)
			if err := s.setAside(s.queue(), name); err != nil {
				return err
			}
			continue
		}
		if err := n.advance(ctx, it, down, len(list)-i > maxWaiting); err != nil {
			return fmt.Errorf("keep a notification: %w", err)
		}
	}
	return nil
}

// advance tries a message on the channels that have not got it, and stores what
// came of each, so that a crash repeats one send at most.
func (n *Notifier) advance(ctx context.Context, it *item, down map[string]bool, crowded bool) error {
	s := n.spool()
	configured := map[string]bool{}
	for _, c := range n.Channels {
		name := c.Name()
		configured[name] = true
		d := it.Channels[name]
		now := n.Now()
		// A time further ahead than any wait was set by a wrong clock.
		if d == nil || d.Final || down[name] || d.Next.After(now) && d.Next.Sub(now) <= 2*maxRetryAfter {
			continue
		}
		n.try(ctx, c, it, d, down)
		if ctx.Err() != nil && d.Error != "" {
			return nil // it was interrupted, which says nothing of the channel
		}
		if d.Error == "" {
			delete(it.Channels, name)
		}
		if len(it.Channels) > 0 {
			if err := s.write(s.queue(), it); err != nil {
				return err
			}
		}
	}
	waiting := 0
	for name, d := range it.Channels {
		if !configured[name] {
			delete(it.Channels, name)
		} else if !d.Final {
			waiting++
		}
	}
	switch {
	case len(it.Channels) == 0:
		return n.Files.RemoveDurable(filepath.Join(s.queue(), it.name))
	case waiting == 0, crowded:
		n.Log.Error("a notification is given up", "id", it.Message.Data.ID, "subject", it.Message.Data.Subject)
		return s.bury(it, n.Now())
	}
	return nil
}

// try sends a message on one channel.
func (n *Notifier) try(ctx context.Context, c Channel, it *item, d *delivery, down map[string]bool) {
	err := c.Send(ctx, it.Message)
	if err == nil {
		d.Error = ""
		n.Log.Info("notified", "channel", c.Name(), "id", it.Message.Data.ID, "subject", it.Message.Data.Subject)
		return
	}
	now := n.Now()
	d.Tries++
	d.Error = alert.Clean(err.Error(), maxOutput)
	d.Final = errors.Is(err, ErrFinal) || now.Sub(it.Message.Timestamp) >= maxAge
	wait := min(firstWait<<min(d.Tries-1, 10), longestWait)
	wait = time.Duration(float64(wait) * (0.75 + 0.5*n.Jitter()))
	var later *TryLater
	if errors.As(err, &later) {
		wait = max(wait, min(later.After, maxRetryAfter))
	}
	d.Next = now.Add(wait)
	if !d.Final {
		down[c.Name()] = true
	}
	n.Log.Warn("cannot notify", "channel", c.Name(), "id", it.Message.Data.ID, "tries", d.Tries, "error", d.Error)
}

// Counts says how many messages wait and were given up.
func (n *Notifier) Counts() (Counts, error) {
	waiting, err := names(n.spool().queue())
	if err != nil {
		return Counts{}, err
	}
	dead, err := names(n.spool().dead())
	return Counts{len(waiting), len(dead)}, err
}

// DeadLetters returns the messages that were given up, the oldest in front.
func (n *Notifier) DeadLetters() ([]DeadLetter, error) {
	s := n.spool()
	list, err := names(s.dead())
	if err != nil {
		return nil, err
	}
	var out []DeadLetter
	for _, name := range list {
		it, err := s.read(s.dead(), name)
		if err != nil {
			return nil, err
		}
		d := DeadLetter{ID: it.Message.Data.ID, At: it.Dead, Subject: it.Message.Data.Subject, Errors: map[string]string{}}
		for channel, state := range it.Channels {
			d.Errors[channel] = state.Error
		}
		out = append(out, d)
	}
	return out, nil
}

// Retry has a message that was given up tried again, as one that is new; the
// error wraps fs.ErrNotExist if there is none of that ID, keyfile.ErrLocked if
// another process is at work.
func (n *Notifier) Retry(id string) (err error) {
	unlock, err := n.lock()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	s := n.spool()
	list, err := names(s.dead())
	if err != nil {
		return err
	}
	for _, name := range list {
		it, err := s.read(s.dead(), name)
		if err != nil || it.Message.Data.ID != id {
			continue
		}
		now := n.Now()
		it.Dead, it.Message.Timestamp = time.Time{}, now
		for _, d := range it.Channels {
			*d = delivery{Next: now}
		}
		if err := s.write(s.queue(), it); err != nil {
			return err
		}
		return n.Files.RemoveDurable(filepath.Join(s.dead(), name))
	}
	return fmt.Errorf("find the message %q: %w", id, os.ErrNotExist)
}

// Result is what came of a test.
type Result struct {
	Channel string
	Err     error
}

// Test sends a test message at once through each channel, or through the named
// one only; what fails is not kept.
func (n *Notifier) Test(ctx context.Context, channel string) ([]Result, error) {
	id, err := newID()
	if err != nil {
		return nil, err
	}
	m := testMessage(id, n.CLM, n.Now())
	var out []Result
	for _, c := range n.Channels {
		if channel == "" || channel == c.Name() {
			out = append(out, Result{c.Name(), c.Send(ctx, m)})
		}
	}
	if channel != "" && len(out) == 0 {
		return nil, fmt.Errorf("no channel %q is configured", channel)
	}
	return out, nil
}
