package notify

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"
)

// ErrNoChannel is wrapped where there is no channel to tell anybody.
var ErrNoChannel = errors.New("no channel is configured")

// Counts are the messages that wait, and those that were given up and are kept.
type Counts struct {
	Waiting int
	Dead    int
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

// DeadLetter is a message that was given up.
type DeadLetter struct {
	ID      string
	At      time.Time // when it was given up
	Subject string
	Errors  map[string]string // by channel
}

// DeadLetters returns the messages that were given up, the oldest in front; one
// that is damaged is logged and left out.
func (n *Notifier) DeadLetters() ([]DeadLetter, error) {
	s := n.spool()
	list, err := names(s.dead())
	if err != nil {
		return nil, err
	}
	var out []DeadLetter
	for _, name := range list {
		it, err := s.read(s.dead(), name)
		if errors.Is(err, errDamaged) || errors.Is(err, fs.ErrNotExist) {
			n.Log.Warn("a dead letter cannot be read", "error", err)
			continue
		}
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

// Retry has a message that was given up tried again, as one that is new, on the
// channels that have not got it; on all if none of those is configured any more.
// The error wraps fs.ErrNotExist if there is no message of that ID, ErrNoChannel
// without channels, keyfile.ErrLocked if another process is at work.
func (n *Notifier) Retry(id string) (err error) {
	if len(n.Channels) == 0 {
		return fmt.Errorf("try the message %q again: %w", id, ErrNoChannel)
	}
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
		n.revive(it)
		if err := s.write(s.queue(), it); err != nil {
			return err
		}
		return n.Files.RemoveDurable(filepath.Join(s.dead(), name))
	}
	return fmt.Errorf("find the message %q: %w", id, fs.ErrNotExist)
}

func (n *Notifier) revive(it *item) {
	now := n.Now()
	again, all := map[string]*delivery{}, map[string]*delivery{}
	for _, c := range n.Channels {
		all[c.Name()] = &delivery{Next: now}
		if it.Channels[c.Name()] != nil {
			again[c.Name()] = all[c.Name()]
		}
	}
	if len(again) == 0 {
		again = all
	}
	it.Channels, it.Dead, it.Queued = again, time.Time{}, now
}
