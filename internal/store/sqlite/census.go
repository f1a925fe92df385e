package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/edgeclm/edgeclm/internal/renewal"
)

// Each of these is a range of an index, or its first or last entry.
const (
	countExpired     = "SELECT count(*) FROM device WHERE cert_not_after <= ? AND decommissioned_at IS NULL"
	countUnenrolled  = "SELECT count(*) FROM device WHERE cert_not_after IS NULL AND decommissioned_at IS NULL"
	countFailing     = "SELECT count(*) FROM device INDEXED BY device_failing WHERE last_error <> '' AND decommissioned_at IS NULL"
	countQuarantined = "SELECT count(*) FROM device INDEXED BY device_quarantined WHERE quarantined AND decommissioned_at IS NULL"
	countPaused      = "SELECT count(*) FROM device INDEXED BY device_paused WHERE paused AND decommissioned_at IS NULL"
	countOpen        = "SELECT count(*) FROM device INDEXED BY device_open WHERE open"
	countDue         = "SELECT count(*) FROM device WHERE due_at <= ?"
	selectUnreached  = "SELECT count(*), min(commissioned_at) FROM device WHERE reached_at IS NULL AND NOT paused AND decommissioned_at IS NULL"
	selectFirstEnd   = "SELECT cert_not_after, name FROM device WHERE cert_not_after > ? AND NOT paused AND NOT quarantined AND decommissioned_at IS NULL ORDER BY cert_not_after LIMIT 1"
	selectSuccess    = "SELECT max(enrolled_at) FROM device WHERE enrolled_at IS NOT NULL"
	selectFleet      = "SELECT devices, tried_at FROM fleet"
	selectShortest   = "SELECT min(cert_not_after - cert_not_before) FROM device WHERE cert_not_after > ? AND decommissioned_at IS NULL"
	selectWaiting    = "SELECT min(min(renew_at, cert_not_after)) FROM device WHERE renew_at <= ? AND NOT paused AND NOT quarantined AND decommissioned_at IS NULL"
)

// selectMisdated finds the devices of which the index of what is due cannot
// judge, since a wrong clock has written their times.
var selectMisdated = selectDevice + `WHERE id IN (
	SELECT id FROM device WHERE next_attempt > ?
	UNION ALL SELECT id FROM device WHERE renew_from > ?) AND (due_at IS NULL OR due_at > ?)`

// Census counts the fleet at now, by indexes alone; longest as in DueJobs.
func (s *Store) Census(ctx context.Context, now time.Time, longest time.Duration) (renewal.Census, error) {
	c := renewal.Census{At: now}
	err := s.snapshot(ctx, func(v *view) (err error) {
		at := []any{now.UnixMicro()}
		for _, q := range []struct {
			query string
			args  []any
			into  []any
		}{
			{selectFleet, nil, []any{&c.Total, timestamp{&c.LastTry}}},
			{countExpired, at, []any{&c.Expired}},
			{countUnenrolled, nil, []any{&c.NeverEnrolled}},
			{countFailing, nil, []any{&c.Failing}},
			{countQuarantined, nil, []any{&c.Quarantined}},
			{countPaused, nil, []any{&c.Paused}},
			{countOpen, nil, []any{&c.Unfinished}},
			{countDue, at, []any{&c.Due}},
			{selectUnreached, nil, []any{&c.NeverReached, timestamp{&c.UnreachedSince}}},
			{selectFirstEnd, at, []any{timestamp{&c.FirstExpiry}, textOf(&c.FirstExpiring)}},
			{selectSuccess, nil, []any{timestamp{&c.LastSuccess}}},
		} {
			if err := v.queryRow(ctx, q.query, q.args, q.into...); err != nil && !errors.Is(err, sql.ErrNoRows) {
				return err
			}
		}
		misdated, err := v.countMisdated(ctx, now, longest)
		if err != nil {
			return err
		}
		c.Due += misdated
		c.Operational = c.Total - c.Expired - c.NeverEnrolled
		c.NextDue, err = v.nextDue(ctx, now)
		return err
	})
	if err != nil {
		return renewal.Census{}, fmt.Errorf("count the fleet: %w", explain(err))
	}
	return c, nil
}

// countMisdated counts the devices that are due though their times say
// otherwise; none where the clocks are right.
func (v *view) countMisdated(ctx context.Context, now time.Time, longest time.Duration) (n int, err error) {
	reader := newRecordReader()
	args := []any{now.Add(longest).UnixMicro(), now.UnixMicro(), now.UnixMicro()}
	err = v.scan(ctx, selectMisdated, args, func(rows *sql.Rows) error {
		r, err := reader.read(rows)
		if err == nil && r.due(now, longest) {
			n++
		}
		return err
	})
	return n, err
}

// Patience says since when the first device waits for its renewal, whenever it
// is tried again, and how long the shortest-lived of the valid certificates
// lives; zero for none. It walks through an index of the whole fleet, and is for
// once a minute.
func (s *Store) Patience(ctx context.Context, now time.Time) (since time.Time, shortest time.Duration, err error) {
	var micros sql.NullInt64
	err = s.queryRow(ctx, selectWaiting, []any{now.UnixMicro()}, timestamp{&since})
	if err == nil {
		err = s.queryRow(ctx, selectShortest, []any{now.UnixMicro()}, &micros)
	}
	if err != nil {
		return time.Time{}, 0, fmt.Errorf("look how long devices wait: %w", explain(err))
	}
	return since, time.Duration(micros.Int64) * time.Microsecond, nil
}
