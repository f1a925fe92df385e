package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"time"
)

// pruneBatch bounds what one transaction deletes, and so what other writers
// wait for it.
const pruneBatch = 500

// A sweep finds what is old by an index on its time, so many from a time and
// number on, and deletes it.
type sweep struct{ find, remove string }

// The events that no audit needs; the condition is that of the partial index
// event_passing.
const fleeting = "kind IN ('progress', 'retry', 'warning', 'failed', 'queued', 'not-delivered')"

// sweeps are in the order in which they have to be done.
func sweeps() []sweep {
	return []sweep{
		{
			find: `SELECT at, id FROM event WHERE ` + fleeting + ` AND at < ?1 AND at >= ?2 AND (at > ?2 OR id > ?3)
				AND (class = '' OR id <> (SELECT max(other.id) FROM event AS other WHERE other.device = event.device AND other.class <> ''))
				AND NOT EXISTS (SELECT 1 FROM enrolment JOIN device ON device.id = enrolment.device WHERE enrolment.id = event.enrolment AND (
					enrolment.` + openState + `
					OR enrolment.seq = (SELECT max(seq) FROM enrolment AS other WHERE other.device = device.id)
					OR enrolment.certificate = (SELECT id FROM certificate WHERE sha256 = cert_sha256)))
				ORDER BY at, id LIMIT ?4`,
			remove: "DELETE FROM event WHERE id = ?",
		},
		// Where a certificate was issued, the enrolment has the proof of whose it is.
		{
			find: `SELECT updated_at, seq FROM enrolment WHERE state = 'failed' AND certificate IS NULL
				AND updated_at < ?1 AND updated_at >= ?2 AND (updated_at > ?2 OR seq > ?3)
				AND seq <> (SELECT max(seq) FROM enrolment AS other WHERE other.device = enrolment.device)
				AND NOT EXISTS (SELECT 1 FROM certificate WHERE certificate.enrolment = enrolment.id)
				AND NOT EXISTS (SELECT 1 FROM event WHERE event.enrolment = enrolment.id)
				ORDER BY updated_at, seq LIMIT ?4`,
			remove: "DELETE FROM enrolment WHERE seq = ?",
		},
	}
}

// Prune deletes what happened before a time and no audit needs, at most limit
// records, and returns how many it deleted: the steps, retries, warnings and
// failures of enrolments, what was queued or not taken, and then the failed
// enrolments that no event is left of and no certificate was issued for. It
// keeps those of the device's open enrolment, its last one and the one of its
// active certificate, the device's last failure, and all that says who held
// which certificate, or what an operator did. The tallies count on.
//
// It deletes in transactions of some hundred records, between which others
// write; what was deleted before an error stays deleted. What it finds is not
// wanted again by anybody meanwhile: an enrolment that has ended does not begin
// anew.
func (s *Store) Prune(ctx context.Context, before time.Time, limit int) (int, error) {
	total := 0
	for _, sw := range sweeps() {
		n, err := s.prune(ctx, sw, before, limit-total)
		if total += n; err != nil {
			return total, fmt.Errorf("prune the history: %w", explain(err))
		}
	}
	return total, nil
}

func (s *Store) prune(ctx context.Context, sw sweep, before time.Time, limit int) (total int, err error) {
	at, id := int64(math.MinInt64), int64(0)
	for total < limit {
		most := min(limit-total, pruneBatch)
		var old []int64
		err := s.scan(ctx, sw.find, []any{before.UnixMicro(), at, id, most}, func(rows *sql.Rows) error {
			err := rows.Scan(&at, &id)
			old = append(old, id)
			return err
		})
		if err != nil {
			return total, err
		}
		if len(old) > 0 {
			if err := s.remove(ctx, sw.remove, old); err != nil {
				return total, err
			}
		}
		if total += len(old); len(old) < most {
			return total, nil
		}
	}
	return total, nil
}

func (s *Store) remove(ctx context.Context, statement string, ids []int64) error {
	return s.writer.do(ctx, func(ctx context.Context, t *tx) error {
		for _, id := range ids {
			if err := t.exec(ctx, statement, id); err != nil {
				return err
			}
		}
		return nil
	})
}
