package sqlite

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/edgeclm/edgeclm/internal/store"
)

const (
	selectAboard   = "SELECT EXISTS (SELECT 1 FROM delivery WHERE device = ? AND kind = 'lifeboat' AND version >= ?)"
	selectAllOn    = "SELECT name FROM device WHERE id IN (SELECT device FROM delivery WHERE kind = 'lifeboat' AND version >= ?)"
	dropDeliveries = "DELETE FROM delivery WHERE device = ?"
)

// leaves reports whether a device has still to leave its root of trust for that
// of the delivery's lifeboat.
func (c *commissioning) leaves(ctx context.Context, t *tx, id int64) (bool, error) {
	if c.Lifeboat.Serial == 0 {
		return false, nil
	}
	var aboard bool
	err := t.queryRow(ctx, selectAboard, []any{id, integerOf(&c.Lifeboat.Serial)}, flag{&aboard})
	return !aboard, err
}

// board makes a device one of the root of a lifeboat: what it was under another
// root, and what was queued or delivered there, does not count any more.
func (c *commissioning) board(ctx context.Context, t *tx, known *claim, row store.Row) error {
	next, queue := c.Lifeboat.Board(known.Row, row)
	for _, statement := range []string{dropWithdrawn, dropDeliveries} {
		if err := t.exec(ctx, statement, known.id); err != nil {
			return err
		}
	}
	c.tally.Note(row.Identity.Name, store.Updated)
	if err := c.update(ctx, t, known, next, row); err != nil || !queue {
		return err
	}
	return c.queueDelivery(ctx, t, c.Lifeboat.Delivery(row, c.At))
}

// Aboard returns the devices for which a lifeboat of at least this serial number
// waits, or was delivered.
func (s *Store) Aboard(ctx context.Context, serial uint64) (map[string]bool, error) {
	out := map[string]bool{}
	err := s.scan(ctx, selectAllOn, []any{integerOf(&serial)}, func(rows *sql.Rows) error {
		var name string
		err := rows.Scan(&name)
		out[name] = true
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("devices with lifeboat %d: %w", serial, explain(err))
	}
	return out, nil
}
