package memstore

import (
	"context"
	"fmt"
	"slices"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/store"
)

var _ enrol.DeliveryStore = (*Store)(nil)

// QueueDeliveries implements enrol.DeliveryStore.
func (s *Store) QueueDeliveries(ctx context.Context, deliveries []enrol.Delivery) (int, error) {
	if err := s.cut(ctx, false); err != nil {
		return 0, err
	}
	s.disk.mu.Lock()
	queued, err := s.disk.queue(deliveries)
	s.disk.mu.Unlock()
	if err != nil {
		return 0, fmt.Errorf("queue deliveries: %w", err)
	}
	return queued, s.cut(ctx, true)
}

// queue queues all deliveries or none; the caller holds mu.
func (d *Disk) queue(deliveries []enrol.Delivery) (queued int, err error) {
	next, events := slices.Clone(d.deliveries), slices.Clone(d.events)
	for _, delivery := range deliveries {
		if err := delivery.Validate(); err != nil {
			return 0, err
		}
		row := d.devices[delivery.Device]
		if row == nil {
			return 0, fmt.Errorf("device %s: %w", delivery.Device, enrol.ErrNotFound)
		}
		if delivery.Kind == enrol.DeliverBundle && delivery.Identity().Compare(row.Identity) <= 0 {
			continue
		}
		known := -1
		for i, k := range next {
			if k.Device == delivery.Device && k.Kind == delivery.Kind && (known < 0 || k.Version > next[known].Version) {
				known = i
			}
		}
		if known >= 0 {
			k := next[known]
			if k.Version > delivery.Version || k.Version == delivery.Version && (!k.Outstanding() || k.Digest == delivery.Digest) {
				continue
			}
			if k.Outstanding() {
				next = slices.Delete(next, known, known+1)
			}
		}
		at := micro(delivery.QueuedAt)
		next = append(next, enrol.NewDelivery(delivery.Device, delivery.Kind, delivery.Version, slices.Clone(delivery.Payload), at))
		events = append(events, enrol.Event{At: at, Device: delivery.Device, Kind: enrol.EventQueued, Message: delivery.String()})
		queued++
	}
	d.deliveries, d.events = next, events
	return queued, nil
}

// OutstandingDeliveries implements enrol.DeliveryStore.
func (s *Store) OutstandingDeliveries(_ context.Context, device string) ([]enrol.Delivery, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	var out []enrol.Delivery
	for _, k := range s.disk.deliveries {
		if k.Device == device && k.Outstanding() {
			k.Payload = slices.Clone(k.Payload)
			out = append(out, k)
		}
	}
	slices.SortFunc(out, enrol.CompareDeliveries)
	return out, nil
}

// RecordDelivery implements enrol.DeliveryStore.
func (s *Store) RecordDelivery(ctx context.Context, a enrol.Attempt) error {
	if err := s.cut(ctx, false); err != nil {
		return err
	}
	if err := s.disk.record(a); err != nil {
		return fmt.Errorf("record delivery to %s: %w", a.Device, err)
	}
	return s.cut(ctx, true)
}

func (d *Disk) record(a enrol.Attempt) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	row := d.devices[a.Device]
	if row == nil {
		return fmt.Errorf("device %s: %w", a.Device, enrol.ErrNotFound)
	}
	later := a.Identity != (ibc.Identity{}) && a.Identity.Compare(row.Identity) > 0
	if later && (a.Identity.Name != row.Name || a.Identity.Role != row.Identity.Role) {
		return fmt.Errorf("%w: %s is not an identity of %s", store.ErrInvalid, a.Identity, row.Name)
	}
	i := slices.IndexFunc(d.deliveries, func(k enrol.Delivery) bool {
		return k.Device == a.Device && k.Kind == a.Kind && k.Version == a.Version && k.Outstanding()
	})
	if i >= 0 && a.Failure == "" && a.At.IsZero() {
		return fmt.Errorf("%w: delivered at no time", store.ErrInvalid)
	}
	if later {
		row.Identity, row.row.Identity = a.Identity, a.Identity
	}
	if i < 0 {
		return nil
	}
	k := &d.deliveries[i]
	event := enrol.Event{At: micro(a.At), Device: a.Device, Kind: enrol.EventDelivered, Message: k.String()}
	if a.Failure != "" {
		k.Tries++
		k.LastError = a.Failure
		event.Kind, event.By, event.Message = enrol.EventNotDelivered, enrol.PartyDevice, event.Message+": "+a.Failure
	} else {
		k.DeliveredAt, k.LastError, k.Payload = micro(a.At), "", nil
	}
	d.events = append(d.events, event)
	return nil
}

// next is the identity whose bundle waits for a device, if it is later than
// the present one.
func (d *Disk) next(row *device) ibc.Identity {
	for _, k := range d.deliveries {
		if k.Device == row.Name && k.Kind == enrol.DeliverBundle && k.Outstanding() && k.Identity().Compare(row.Identity) > 0 {
			return k.Identity()
		}
	}
	return ibc.Identity{}
}
