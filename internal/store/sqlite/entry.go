package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

var selectEntries = "SELECT event.id, (SELECT name FROM device WHERE device.id = event.device), enrolment, " + nameList(eventColumns(&enrol.Event{})) +
	" FROM event WHERE event.id > ? ORDER BY event.id LIMIT ?"

const selectLastEntry = "SELECT id FROM event ORDER BY id DESC LIMIT 1"

// Entries returns the events of the whole fleet after one, oldest first, at
// most limit.
func (s *Store) Entries(ctx context.Context, after int64, limit int) ([]renewal.Entry, error) {
	var out []renewal.Entry
	err := s.scan(ctx, selectEntries, []any{after, limit}, func(rows *sql.Rows) error {
		var e renewal.Entry
		var enrolment []byte
		if err := rows.Scan(append([]any{&e.ID, textOf(&e.Device), &enrolment}, values(eventColumns(&e.Event))...)...); err != nil {
			return err
		}
		copy(e.Enrolment[:], enrolment)
		out = append(out, e)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read events: %w", explain(err))
	}
	return out, nil
}

// LastEntry returns the ID of the newest event; 0: there is none.
func (s *Store) LastEntry(ctx context.Context) (int64, error) {
	var id int64
	if err := s.queryRow(ctx, selectLastEntry, nil, &id); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("read the last event: %w", explain(err))
	}
	return id, nil
}
