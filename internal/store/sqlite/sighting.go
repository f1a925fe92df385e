package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/store"
)

var _ enrol.SightingStore = (*Store)(nil)

// sightingColumns are those of the table that are the sighting's own.
func sightingColumns(s *enrol.Sighting, anchors *[]byte) []column {
	return []column{
		{"epoch", integerOf(&s.Identity.Epoch)}, {"generation", integerOf(&s.Identity.Generation)},
		{"at", timestamp{&s.At}}, {"serial", integerOf(&s.Serial)}, {"anchors", blob{anchors}},
	}
}

var (
	insertSighting = "INSERT INTO sighting (" + nameList(sightingColumns(&enrol.Sighting{}, new([]byte))) + ", device) VALUES (?, ?, ?, ?, ?, ?) " +
		"ON CONFLICT (device) DO UPDATE SET epoch = excluded.epoch, generation = excluded.generation, at = excluded.at, serial = excluded.serial, anchors = excluded.anchors"
	selectSighting = "SELECT " + nameList(sightingColumns(&enrol.Sighting{}, new([]byte))) + " FROM sighting WHERE device = ?"
)

// PutSighting implements enrol.SightingStore.
func (s *Store) PutSighting(ctx context.Context, seen enrol.Sighting) error {
	err := s.writer.do(ctx, func(ctx context.Context, t *tx) error {
		if err := store.CheckSighting(seen); err != nil {
			return err
		}
		r, err := t.record(ctx, seen.Device)
		if err != nil {
			return err
		}
		var joined []byte
		for _, sum := range seen.Anchors {
			joined = append(joined, sum[:]...)
		}
		if err := t.exec(ctx, markReached, timestamp{&seen.At}, r.id); err != nil {
			return err
		}
		return t.exec(ctx, insertSighting, values(sightingColumns(&seen, &joined), r.id)...)
	})
	if err != nil {
		return fmt.Errorf("record sighting of %s: %w", seen.Device, err)
	}
	return nil
}

// LastSighting implements enrol.SightingStore.
func (s *Store) LastSighting(ctx context.Context, device string) (enrol.Sighting, error) {
	seen := enrol.Sighting{Device: device}
	err := s.snapshot(ctx, func(v *view) error {
		r, err := v.record(ctx, device)
		if err != nil {
			return err
		}
		var joined []byte
		err = v.queryRow(ctx, selectSighting, []any{r.id}, values(sightingColumns(&seen, &joined))...)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		seen.Identity.Role, seen.Identity.Name = ibc.RoleDevice, device
		for ; len(joined) >= 32; joined = joined[32:] {
			seen.Anchors = append(seen.Anchors, [32]byte(joined))
		}
		return err
	})
	if err != nil {
		return enrol.Sighting{}, fmt.Errorf("sighting of %s: %w", device, explain(err))
	}
	return seen, nil
}
