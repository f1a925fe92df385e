package sqlite

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/edgeclm/edgeclm/internal/fleet"
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
	return !d.Paused && !d.Quarantined && !fleet.Waits(d.NextAttempt, now, longest) && (r.open || d.Due(now))
}

// DueDevices returns the names of the devices, among those that a filter
// selects, that should be worked on at now; those whose certificates end first
// are in front. They are neither paused nor quarantined, have an open
// enrolment or a certificate that is due (fleet.Device.Due), and no next try
// ahead (fleet.Waits with longest, which is enrol.Policy.LongestWait).
func (s *Store) DueDevices(ctx context.Context, f store.Filter, now time.Time, longest time.Duration) ([]string, error) {
	type dueDevice struct {
		name string
		end  time.Time
	}
	var found []dueDevice
	visit := func(r *record) error {
		if r.due(now, longest) {
			found = append(found, dueDevice{r.device.Name, r.certificate.NotAfter})
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
	slices.SortFunc(found, func(a, b dueDevice) int {
		return cmp.Or(a.end.Compare(b.end), cmp.Compare(a.name, b.name))
	})
	names := make([]string, len(found))
	for i, d := range found {
		names[i] = d.name
	}
	return names, nil
}

// NextDue returns the time before which no device becomes due that is not due
// at now, and the zero time if none ever will without somebody's doing.
func (s *Store) NextDue(ctx context.Context, now time.Time) (time.Time, error) {
	var next, misdated time.Time
	at := now.UnixMicro()
	err := s.queryRow(ctx, selectNextDue, []any{at}, timestamp{&next})
	if err == nil {
		err = s.queryRow(ctx, selectNextMisdated, []any{at, at}, timestamp{&misdated})
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("find the next due device: %w", explain(err))
	}
	if next.IsZero() || !misdated.IsZero() && misdated.Before(next) {
		next = misdated
	}
	return next, nil
}
