package memstore

import (
	"context"
	"fmt"
	"slices"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/store"
)

var _ enrol.SightingStore = (*Store)(nil)

// PutSighting implements enrol.SightingStore.
func (s *Store) PutSighting(ctx context.Context, seen enrol.Sighting) error {
	if err := s.cut(ctx, false); err != nil {
		return err
	}
	err := func() error {
		s.disk.mu.Lock()
		defer s.disk.mu.Unlock()
		row := s.disk.devices[seen.Device]
		if err := store.CheckSighting(seen); err != nil {
			return err
		}
		if row == nil {
			return enrol.ErrNotFound
		}
		seen.At, seen.Anchors = micro(seen.At), slices.Clone(seen.Anchors)
		row.seen = seen
		return nil
	}()
	if err != nil {
		return fmt.Errorf("record sighting of %s: %w", seen.Device, err)
	}
	return s.cut(ctx, true)
}

// LastSighting implements enrol.SightingStore.
func (s *Store) LastSighting(_ context.Context, device string) (enrol.Sighting, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	row := s.disk.devices[device]
	if row == nil {
		return enrol.Sighting{}, fmt.Errorf("sighting of %s: %w", device, enrol.ErrNotFound)
	}
	seen := row.seen
	seen.Device, seen.Anchors = device, slices.Clone(seen.Anchors)
	return seen, nil
}
