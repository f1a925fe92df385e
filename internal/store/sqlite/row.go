package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"

	"github.com/edgeclm/edgeclm/internal/renewal"
)

func rowColumns(r *renewal.Row, seen labelSets) []column {
	return []column{
		{"name", textOf(&r.Name)},
		{"coalesce(address_manual, address)", textOf(&r.Address)},
		{"coalesce(asset, '')", textOf(&r.Asset)},
		{"coalesce(labels_manual, labels)", sharedLabels{&r.Labels, seen}},
		{"paused", flag{&r.Paused}},
		{"quarantined", flag{&r.Quarantined}},
		{"cert_not_before", timestamp{&r.NotBefore}},
		{"cert_not_after", timestamp{&r.NotAfter}},
		{"enrolled_at", timestamp{&r.EnrolledAt}},
		{"renew_at", timestamp{&r.RenewAt}},
		{"next_attempt", timestamp{&r.NextAttempt}},
		{"attempts", integerOf(&r.Attempts)},
		{"last_error", textOf(&r.LastError)},
	}
}

var (
	selectRow  = "SELECT " + nameList(rowColumns(&renewal.Row{}, nil)) + " FROM device WHERE name = ? AND decommissioned_at IS NULL"
	selectRows = "SELECT " + nameList(rowColumns(&renewal.Row{}, nil)) + " FROM device WHERE name > ? AND decommissioned_at IS NULL ORDER BY name LIMIT ?"
)

// Rows returns the next devices in service by name after one ("": from the first), at most
// limit (0: all).
func (s *Store) Rows(ctx context.Context, after string, limit int) ([]renewal.Row, error) {
	if limit <= 0 {
		limit = math.MaxInt
	}
	var out []renewal.Row
	var r renewal.Row
	into := values(rowColumns(&r, labelSets{}))
	err := s.scan(ctx, selectRows, []any{after, limit}, func(rows *sql.Rows) error {
		r = renewal.Row{}
		err := rows.Scan(into...)
		out = append(out, r)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", explain(err))
	}
	return out, nil
}

// RowsOf returns the rows of these devices; those that do not exist, or are
// decommissioned, are left out.
func (s *Store) RowsOf(ctx context.Context, names []string) ([]renewal.Row, error) {
	var out []renewal.Row
	seen := labelSets{}
	for _, name := range names {
		var r renewal.Row
		err := s.queryRow(ctx, selectRow, []any{name}, values(rowColumns(&r, seen))...)
		switch {
		case errors.Is(err, sql.ErrNoRows):
		case err != nil:
			return nil, fmt.Errorf("device %s: %w", name, explain(err))
		default:
			out = append(out, r)
		}
	}
	return out, nil
}
