package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

const (
	addTally    = "INSERT INTO tally (kind, class, n) VALUES (?, ?, 1) ON CONFLICT (kind, class) DO UPDATE SET n = n + 1"
	addStep     = "INSERT INTO step (name, bucket, n, sum) VALUES (?1, ?2, 1, ?3) ON CONFLICT (name, bucket) DO UPDATE SET n = n + 1, sum = sum + ?3"
	markReached = "UPDATE device SET reached_at = ? WHERE id = ? AND reached_at IS NULL"
)

// stepBounds are the upper bounds of the buckets of table step; what takes
// longer than the last is in one more. They are stored by their place: only
// ever add at the end.
func stepBounds() []time.Duration {
	const ms = time.Millisecond
	return []time.Duration{
		5 * ms, 10 * ms, 25 * ms, 50 * ms, 100 * ms, 250 * ms, 500 * ms, time.Second, 2500 * ms, 5 * time.Second, 10 * time.Second,
		30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute,
	}
}

// stepsOf are the steps of an enrolment by name.
func stepsOf(s enrol.Steps) []struct {
	name string
	took time.Duration
} {
	return []struct {
		name string
		took time.Duration
	}{
		{"csr_request", s.CSRRequest}, {"key_and_csr", s.KeyAndCSR}, {"enrolment", s.Enrolment},
		{"verify_request", s.VerifyRequest}, {"verification", s.Verification},
		{"total", s.Total()},
	}
}

// putSteps adds the steps of an enrolment that is completed to the histograms.
func (t *tx) putSteps(ctx context.Context, s enrol.Steps) error {
	bounds := stepBounds()
	for _, step := range stepsOf(s) {
		bucket, _ := slices.BinarySearch(bounds, step.took)
		if err := t.exec(ctx, addStep, step.name, bucket, int64(step.took)); err != nil {
			return err
		}
	}
	return nil
}

// Tallies returns how often each kind of event happened since the inventory
// began, and how long the steps of completed enrolments took.
func (s *Store) Tallies(ctx context.Context) ([]renewal.Count, []renewal.Step, error) {
	var counts []renewal.Count
	var steps []renewal.Step
	err := s.snapshot(ctx, func(v *view) error {
		err := v.scan(ctx, "SELECT kind, class, n FROM tally ORDER BY kind, class", nil, func(rows *sql.Rows) error {
			var c renewal.Count
			err := rows.Scan(textOf(&c.Kind), textOf(&c.Class), integerOf(&c.N))
			counts = append(counts, c)
			return err
		})
		if err == nil {
			steps, err = v.steps(ctx)
		}
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("read the tallies: %w", explain(err))
	}
	return counts, steps, nil
}

func (v *view) steps(ctx context.Context) (out []renewal.Step, err error) {
	bounds := stepBounds()
	err = v.scan(ctx, "SELECT name, bucket, n, sum FROM step ORDER BY name, bucket", nil, func(rows *sql.Rows) error {
		var name string
		var bucket int
		var n uint64
		var sum time.Duration
		if err := rows.Scan(&name, &bucket, integerOf(&n), integerOf(&sum)); err != nil {
			return err
		}
		if len(out) == 0 || out[len(out)-1].Name != name {
			out = append(out, renewal.Step{Name: name, Buckets: make(map[time.Duration]uint64, len(bounds))})
		}
		step := &out[len(out)-1]
		step.N, step.Sum = step.N+n, step.Sum+sum
		for _, bound := range bounds[min(bucket, len(bounds)):] {
			step.Buckets[bound] += n
		}
		return nil
	})
	return out, err
}
