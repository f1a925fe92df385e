package sqlite

import (
	"context"
	"fmt"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/store"
)

// SetPaused pauses a device or resumes it.
func (s *Store) SetPaused(ctx context.Context, a store.Action, paused bool) error {
	kind := store.EventResumed
	if paused {
		kind = store.EventPaused
	}
	return s.act(ctx, a, kind, "UPDATE device SET paused = ? WHERE name = ? AND paused <> ?", flag{&paused}, a.Device, flag{&paused})
}

// SetLabels overrides the labels of the manifest; nil returns to them. Labels
// that are none wrap store.ErrInvalid.
func (s *Store) SetLabels(ctx context.Context, a store.Action, labels map[string]string) error {
	if err := fleet.ValidateLabels(labels); err != nil {
		return fmt.Errorf("label %s: %w: %w", a.Device, store.ErrInvalid, err)
	}
	var manual any
	if labels != nil {
		manual = document{&labels}
	}
	return s.act(ctx, a, store.EventLabelled, "UPDATE device SET labels_manual = ?1 WHERE name = ?2 AND labels_manual IS NOT ?1", manual, a.Device)
}

// Release ends a device's quarantine: its attempts count from 0 again, and the
// next one may come at once.
func (s *Store) Release(ctx context.Context, a store.Action) error {
	return s.act(ctx, a, store.EventReleased, `UPDATE device SET quarantined = 0, attempts = 0, next_attempt = NULL
		WHERE name = ? AND (quarantined OR attempts > 0 OR next_attempt IS NOT NULL)`, a.Device)
}

// act changes the row of one device, and notes it if that changed anything.
func (s *Store) act(ctx context.Context, a store.Action, kind enrol.EventKind, update string, args ...any) error {
	err := s.writer.do(ctx, func(ctx context.Context, t *tx) error {
		if _, err := t.record(ctx, a.Device); err != nil {
			return err
		}
		n, err := t.execCount(ctx, update, args...)
		if err != nil || n == 0 {
			return err
		}
		return t.putEvent(ctx, &enrol.Event{At: a.At, Device: a.Device, Kind: kind, Message: a.Reason})
	})
	if err != nil {
		return fmt.Errorf("change %s: %w", a.Device, err)
	}
	return nil
}

// Note takes down an event that concerns a device, and changes nothing else.
func (s *Store) Note(ctx context.Context, a store.Action, kind enrol.EventKind) error {
	return s.act(ctx, a, kind, "UPDATE device SET name = name WHERE name = ?", a.Device)
}
