package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
)

var (
	_ enrol.HealthStore = (*Store)(nil)
	_ enrol.Planner     = (*Store)(nil)
)

const selectBreaker = "SELECT state FROM breaker WHERE ca = ?"

// Breaker implements enrol.HealthStore.
func (s *Store) Breaker(ctx context.Context, ca string) (enrol.Breaker, error) {
	var state []byte
	err := s.queryRow(ctx, selectBreaker, []any{ca}, &state)
	return parseBreaker(ca, state, err)
}

// parseBreaker returns a breaker as it was stored, a closed one if there is
// none.
func parseBreaker(ca string, state []byte, err error) (enrol.Breaker, error) {
	b := enrol.Breaker{CA: ca, State: enrol.BreakerClosed}
	if err == nil {
		err = json.Unmarshal(state, &b)
	}
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return enrol.Breaker{}, fmt.Errorf("breaker of CA %s: %w", ca, explain(err))
	}
	b.CA = ca
	return b, nil
}

// UpdateBreaker implements enrol.HealthStore.
func (s *Store) UpdateBreaker(ctx context.Context, ca string, change func(*enrol.Breaker) bool) (enrol.Breaker, error) {
	var b enrol.Breaker
	err := s.writer.do(ctx, func(ctx context.Context, t *tx) error {
		var state []byte
		err := t.queryRow(ctx, selectBreaker, []any{ca}, &state)
		if b, err = parseBreaker(ca, state, err); err != nil {
			return err
		}
		if !change(&b) {
			return nil
		}
		b.CA = ca
		next, err := json.Marshal(b)
		if err != nil {
			return err
		}
		return t.exec(ctx, "INSERT INTO breaker (ca, state) VALUES (?, ?) ON CONFLICT (ca) DO UPDATE SET state = excluded.state", ca, string(next))
	})
	if err != nil {
		return enrol.Breaker{}, fmt.Errorf("update the breaker of CA %s: %w", ca, err)
	}
	return b, nil
}

const selectPlanned = "SELECT count(*) FROM device WHERE renew_at >= ? AND renew_at < ? AND renew_at IS NOT NULL AND NOT paused AND NOT quarantined"

// PlannedRenewals implements enrol.Planner: of devices that are neither paused
// nor quarantined.
func (s *Store) PlannedRenewals(ctx context.Context, from, to time.Time) (int, error) {
	var n int
	if err := s.queryRow(ctx, selectPlanned, []any{from.UnixMicro(), to.UnixMicro()}, &n); err != nil {
		return 0, fmt.Errorf("count planned renewals: %w", explain(err))
	}
	return n, nil
}

// Renewals counts the devices that become due in each of n steps from a time
// on, of those that are neither paused nor quarantined.
func (s *Store) Renewals(ctx context.Context, from time.Time, step time.Duration, n int) ([]int, error) {
	counts := make([]int, n)
	for i := range counts {
		at := from.Add(time.Duration(i) * step)
		var err error
		if counts[i], err = s.PlannedRenewals(ctx, at, at.Add(step)); err != nil {
			return nil, err
		}
	}
	return counts, nil
}
