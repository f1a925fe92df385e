package enroltest

import (
	"context"
	"fmt"
	"slices"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// QueueDeliveries implements enrol.DeliveryStore, but for what it says of
// deliveries that supersede others.
func (s *Store) QueueDeliveries(_ context.Context, deliveries []enrol.Delivery) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deliveries = append(s.deliveries, deliveries...)
	return len(deliveries), nil
}

// OutstandingDeliveries implements enrol.DeliveryStore.
func (s *Store) OutstandingDeliveries(ctx context.Context, device string) ([]enrol.Delivery, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []enrol.Delivery
	for _, d := range s.deliveries {
		if d.Device == device && d.Outstanding() {
			out = append(out, d)
		}
	}
	slices.SortFunc(out, enrol.CompareDeliveries)
	return out, ctx.Err()
}

// RecordDelivery implements enrol.DeliveryStore.
func (s *Store) RecordDelivery(ctx context.Context, a enrol.Attempt) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempts = append(s.attempts, a)
	row := s.devices[a.Device]
	if a.Identity != (ibc.Identity{}) && a.Identity.Compare(row.Identity) > 0 {
		row.Identity = a.Identity
		s.devices[a.Device] = row
	}
	for i := range s.deliveries {
		d := &s.deliveries[i]
		if d.Device != a.Device || d.Kind != a.Kind || d.Version != a.Version || !d.Outstanding() {
			continue
		}
		if a.Failure == "" {
			d.DeliveredAt, d.Payload = a.At, nil
		} else {
			d.Tries++
			d.LastError = a.Failure
		}
	}
	return nil
}

// Deliveries returns all that was queued.
func (s *Store) Deliveries() []enrol.Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.deliveries)
}

// Attempts returns the attempts to deliver, oldest first.
func (s *Store) Attempts() []enrol.Attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.attempts)
}

// PutSighting implements enrol.SightingStore.
func (s *Store) PutSighting(_ context.Context, seen enrol.Sighting) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.devices[seen.Device]; !ok {
		return fmt.Errorf("%w: %s", enrol.ErrNotFound, seen.Device)
	}
	s.sightings[seen.Device] = seen
	return nil
}

// LastSighting implements enrol.SightingStore.
func (s *Store) LastSighting(_ context.Context, device string) (enrol.Sighting, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.devices[device]; !ok {
		return enrol.Sighting{}, fmt.Errorf("%w: %s", enrol.ErrNotFound, device)
	}
	return s.sightings[device], nil
}
