package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/edgeclm/edgeclm/internal/alert"
	"github.com/edgeclm/edgeclm/internal/enrol"
)

const (
	fromTroubled = ` FROM device WHERE id IN (
	SELECT id FROM device INDEXED BY device_failing WHERE last_error <> '' AND decommissioned_at IS NULL
	UNION ALL SELECT id FROM device INDEXED BY device_quarantined WHERE quarantined AND decommissioned_at IS NULL
	UNION ALL SELECT id FROM device WHERE cert_not_after <= ? AND decommissioned_at IS NULL) AND NOT paused`
	selectTroubled = "SELECT id, name, last_error, enrolled_at, cert_not_after, quarantined" + fromTroubled + " ORDER BY cert_not_after, id LIMIT ?"
	countTroubled  = "SELECT count(*)" + fromTroubled
	selectFailures = "SELECT kind, class, at FROM event WHERE device = ? ORDER BY id DESC LIMIT ?"
)

// lookBack is how many events of a device are read for when its trouble began.
const lookBack = 200

// Troubles returns the devices, paused ones apart, whose last try failed, that
// are quarantined, or whose certificate has ended, at most limit, those whose
// certificates end first in front; and how many more there are.
func (s *Store) Troubles(ctx context.Context, now time.Time, limit int) (found []alert.Trouble, more int, err error) {
	var ids []int64
	err = s.snapshot(ctx, func(v *view) error {
		err := v.scan(ctx, selectTroubled, []any{now.UnixMicro(), limit}, func(rows *sql.Rows) error {
			var id int64
			var t alert.Trouble
			err := rows.Scan(&id, textOf(&t.Device), textOf(&t.LastError), timestamp{&t.EnrolledAt}, timestamp{&t.NotAfter}, flag{&t.Quarantined})
			ids, found = append(ids, id), append(found, t)
			return err
		})
		if err != nil {
			return err
		}
		if more = 0; len(found) == limit {
			if err := v.queryRow(ctx, countTroubled, []any{now.UnixMicro()}, &more); err != nil {
				return err
			}
			more -= len(found)
		}
		for i, id := range ids {
			if err := v.sinceWhen(ctx, id, &found[i]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("list devices in trouble: %w", explain(err))
	}
	return found, more, nil
}

// sinceWhen finds the class of a device's last failure, and the first one since
// its last success.
func (v *view) sinceWhen(ctx context.Context, id int64, t *alert.Trouble) error {
	err := v.scan(ctx, selectFailures, []any{id, lookBack}, func(rows *sql.Rows) error {
		var kind enrol.EventKind
		var class enrol.Class
		var at time.Time
		if err := rows.Scan(textOf(&kind), textOf(&class), timestamp{&at}); err != nil {
			return err
		}
		switch {
		case kind == enrol.EventCompleted:
			return errStopped
		case class != "" && t.Class == "":
			t.Class = class
			fallthrough
		case class != "":
			t.Since = at
		}
		return nil
	})
	if errors.Is(err, errStopped) {
		return nil
	}
	return err
}
