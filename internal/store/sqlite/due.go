package sqlite

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/renewal"
	"github.com/edgeclm/edgeclm/internal/store"
)

// selectCandidates finds by its three indexes every device that may be due:
// those whose time has come, and those whose stored times only a wrong clock
// can have written (fleet.Waits). In a plant whose clocks are right it visits
// the due ones alone, however large the fleet is.
var selectCandidates = selectDevice + `WHERE id IN (
	SELECT id FROM device WHERE due_at <= ?
	UNION ALL SELECT id FROM device WHERE next_attempt > ?
	UNION ALL SELECT id FROM device WHERE renew_from > ?)`

const (
	selectNextDue = "SELECT min(due_at) FROM device WHERE due_at > ?"
	// A renewal time that only a wrong clock can have written counts as now, so
	// such a device is due when its next attempt is. SQLite would walk through
	// the index on next_attempt, and there are none when the clocks are right.
	selectNextMisdated = `SELECT min(next_attempt) FROM device INDEXED BY device_renew_from
		WHERE renew_from > ? AND next_attempt > ? AND renew_from > next_attempt`
)

// due is the judgement on a candidate, in the core's own words.
func (r *record) due(now time.Time, longest time.Duration) bool {
	d := &r.device
	return !d.Paused && !d.Quarantined && !fleet.Waits(d.NextAttempt, now, longest) && (r.open || d.Tried() && d.Due(now))
}

// DueJobs returns the devices, among those that a filter selects, that should be
// worked on at now; those whose certificates end first are in front. They are
// neither paused nor quarantined, have an open enrolment or a certificate that
// is due (fleet.Device.Due), or failed to get one, and no next try ahead
// (fleet.Waits with longest, which is enrol.Policy.LongestWait).
func (s *Store) DueJobs(ctx context.Context, f store.Filter, now time.Time, longest time.Duration) ([]renewal.Job, error) {
	var found []renewal.Job
	visit := func(r *record) error {
		if r.due(now, longest) {
			found = append(found, renewal.Job{
				Device: r.device.Name, NotAfter: r.certificate.NotAfter, Due: r.dueSince(), Failing: r.device.LastError != "",
			})
		}
		return nil
	}
	var err error
	if len(f.Names) > 0 {
		err = s.each(ctx, f, visit)
	} else {
		args := []any{now.UnixMicro(), now.Add(longest).UnixMicro(), now.UnixMicro()}
		err = s.eachOf(ctx, selectCandidates, args, f, visit)
	}
	if err != nil {
		return nil, fmt.Errorf("find due devices: %w", explain(err))
	}
	slices.SortFunc(found, func(a, b renewal.Job) int {
		return cmp.Or(a.NotAfter.Compare(b.NotAfter), cmp.Compare(a.Device, b.Device))
	})
	return found, nil
}

// dueSince is since when a due device waits for its next enrolment, retries
// apart; zero if it has no certificate.
func (r *record) dueSince() time.Time {
	if c := r.device.Certificate; c != nil && c.NotAfter.Before(r.device.RenewAt) {
		return c.NotAfter
	}
	return r.device.RenewAt
}

// NextDue returns the time before which no device becomes due that is not due
// at now, and the zero time if none ever will without somebody's doing.
func (s *Store) NextDue(ctx context.Context, now time.Time) (time.Time, error) {
	next, err := s.nextDue(ctx, now)
	if err != nil {
		return time.Time{}, fmt.Errorf("find the next due device: %w", explain(err))
	}
	return next, nil
}

func (v *view) nextDue(ctx context.Context, now time.Time) (time.Time, error) {
	var next, misdated time.Time
	at := now.UnixMicro()
	err := v.queryRow(ctx, selectNextDue, []any{at}, timestamp{&next})
	if err == nil {
		err = v.queryRow(ctx, selectNextMisdated, []any{at, at}, timestamp{&misdated})
	}
	if next.IsZero() || !misdated.IsZero() && misdated.Before(next) {
		next = misdated
	}
	return next, err
}
