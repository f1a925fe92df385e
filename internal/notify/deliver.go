package notify

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/edgeclm/edgeclm/internal/alert"
)

// pass is one time that what waits is tried.
type pass struct {
	*Notifier
	down map[string]bool // channels, and kinds of them, that are left alone for now
}

// deliver tries what is due. What lies beyond the sequence was never taken down
// as told, and will be replaced. Without channels all of it waits for one.
func (n *Notifier) deliver(ctx context.Context, sequence uint64) error {
	if len(n.Channels) == 0 {
		return nil
	}
	s := n.spool()
	list, err := names(s.queue())
	if err != nil {
		return fmt.Errorf("list the notifications: %w", err)
	}
	p := pass{n, map[string]bool{}}
	var failures []error
	for i, name := range list {
		if ctx.Err() != nil || name > itemName(sequence) {
			break
		}
		it, err := s.read(s.queue(), name)
		if errors.Is(err, errDamaged) {
			n.Log.Error("a notification is damaged and set aside", "error", err)
			err = s.setAside(s.queue(), name)
		} else if err == nil {
			err = p.advance(ctx, it, len(list)-i > maxWaiting)
		}
		if err != nil {
			failures = append(failures, fmt.Errorf("keep a notification: %w", err))
		}
	}
	return errors.Join(failures...)
}

// advance tries a message on the channels that have not got it, and stores what
// came of each, so that a crash repeats one send at most.
func (p pass) advance(ctx context.Context, it *item, crowded bool) error {
	configured := map[string]bool{}
	for _, c := range p.Channels {
		configured[c.Name()] = true
		if !p.attempt(ctx, c, it) {
			continue
		}
		if err := p.record(it); err != nil {
			return err
		}
		if len(it.Channels) == 0 {
			return nil
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
		return p.record(it)
	case waiting == 0, crowded:
		p.Log.Error("a notification is given up", "id", it.Message.Data.ID, "subject", it.Message.Data.Subject)
		return p.spool().bury(it, p.Now())
	}
	return nil
}

// attempt tries a message on a channel if it is due there, and reports whether
// anything came of it that is to be recorded.
func (p pass) attempt(ctx context.Context, c Channel, it *item) bool {
	name := c.Name()
	d := it.Channels[name]
	if d == nil {
		return false
	}
	if r := (receipt{it.Message.Data.ID, name}); p.unrecorded[r] {
		delete(it.Channels, name)
		return true
	}
	// A time further ahead than any wait was set by a wrong clock.
	if wait := d.Next.Sub(p.Now()); d.Final || p.down[name] || p.down[kindOf(name)] || wait > 0 && wait <= 2*maxRetryAfter {
		return false
	}
	err := c.Send(ctx, it.Message)
	switch {
	case err == nil:
		p.Log.Info("notified", "channel", name, "id", it.Message.Data.ID, "subject", it.Message.Data.Subject)
		delete(it.Channels, name)
		if p.unrecorded == nil {
			p.unrecorded = map[receipt]bool{}
		}
		p.unrecorded[receipt{it.Message.Data.ID, name}] = true
		return true
	case ctx.Err() != nil:
		return false // it was interrupted, which says nothing of the channel
	}
	p.failed(name, it, d, err)
	return true
}

// failed takes down that a try failed, and when the next one is.
func (p pass) failed(name string, it *item, d *delivery, err error) {
	now := p.Now()
	d.Tries++
	d.Error = alert.Clean(err.Error(), maxOutput)
	// Tries are counted too, for a clock that jumps or a process that seldom runs.
	d.Final = errors.Is(err, ErrFinal) || d.Tries >= maxTries || d.Tries >= minTries && now.Sub(it.Queued) >= maxAge
	wait := min(firstWait<<min(d.Tries-1, 10), longestWait)
	wait = time.Duration(float64(wait) * (0.75 + 0.5*p.Jitter()))
	var later *TryLater
	if errors.As(err, &later) {
		wait = max(wait, min(later.After, maxRetryAfter))
	}
	d.Next = now.Add(wait)
	p.down[name] = p.down[name] || !errors.Is(err, ErrFinal)
	var all *Down
	p.down[kindOf(name)] = p.down[kindOf(name)] || errors.As(err, &all)
	p.Log.Warn("cannot notify", "channel", name, "id", it.Message.Data.ID, "tries", d.Tries, "error", d.Error)
}

// record stores on which channels a message still waits.
func (p pass) record(it *item) error {
	s := p.spool()
	var err error
	if len(it.Channels) == 0 {
		err = p.Files.RemoveDurable(filepath.Join(s.queue(), it.name))
	} else {
		err = s.write(s.queue(), it)
	}
	if err != nil {
		return err
	}
	for r := range p.unrecorded {
		if r.id == it.Message.Data.ID {
			delete(p.unrecorded, r)
		}
	}
	return nil
}
