package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/store"
)

var _ enrol.DeliveryStore = (*Store)(nil)

// selectNext is the version of a device's outstanding bundle.
const selectNext = "coalesce((SELECT version FROM delivery WHERE delivery.device = device.id AND kind = 'bundle' AND delivered_at IS NULL), 0)"

// deliveryColumns are those of the table that are the delivery's own.
func deliveryColumns(d *enrol.Delivery) []column {
	return []column{
		{"kind", textOf(&d.Kind)},
		{"version", integerOf(&d.Version)},
		{"payload", digest{&d.Digest}},
		{"queued_at", timestamp{&d.QueuedAt}},
		{"delivered_at", timestamp{&d.DeliveredAt}},
		{"tries", integerOf(&d.Tries)},
		{"last_error", textOf(&d.LastError)},
	}
}

var (
	insertDelivery = "INSERT INTO delivery (" + nameList(deliveryColumns(&enrol.Delivery{})) + ", device) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"

	selectDelivered   = "SELECT " + nameList(deliveryColumns(&enrol.Delivery{})) + " FROM delivery WHERE device = ? ORDER BY id"
	selectOutstanding = "SELECT " + nameList(deliveryColumns(&enrol.Delivery{})) + ", data FROM delivery JOIN payload ON payload.sha256 = delivery.payload " +
		"WHERE device = (SELECT id FROM device WHERE name = ?) AND delivered_at IS NULL"
	selectAllOutstanding = "SELECT " + nameList(deliveryColumns(&enrol.Delivery{})) + ", (SELECT name FROM device WHERE device.id = delivery.device) AS name " +
		"FROM delivery WHERE delivered_at IS NULL ORDER BY name, delivery.id"
	selectTried = "SELECT payload FROM delivery WHERE device = ? AND kind = ? AND version = ? AND delivered_at IS NULL"
	selectKnown = "SELECT " + nameList(deliveryColumns(&enrol.Delivery{})) + " FROM delivery WHERE device = ? AND kind = ? ORDER BY version DESC LIMIT 1"
)

// QueueDeliveries implements enrol.DeliveryStore.
func (s *Store) QueueDeliveries(ctx context.Context, deliveries []enrol.Delivery) (queued int, err error) {
	err = s.writer.do(ctx, func(inside context.Context, t *tx) error {
		queued = 0
		for i := range deliveries {
			isNew, err := t.queue(inside, &deliveries[i])
			if err := errors.Join(ctx.Err(), err); err != nil {
				return err
			}
			if isNew {
				queued++
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("queue deliveries: %w", err)
	}
	return queued, nil
}

// queue stores a delivery unless the device has it, or something later, or is
// out of service.
func (t *tx) queue(ctx context.Context, d *enrol.Delivery) (isNew bool, err error) {
	if err := d.Validate(); err != nil {
		return false, err
	}
	r, err := t.record(ctx, d.Device)
	if err != nil {
		return false, err
	}
	if !r.device.InService() {
		return false, nil
	}
	if d.Kind == enrol.DeliverBundle && d.Identity().Compare(r.device.Identity) <= 0 {
		return false, nil
	}
	var known enrol.Delivery
	err = t.queryRow(ctx, selectKnown, []any{r.id, textOf(&d.Kind)}, values(deliveryColumns(&known))...)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return false, err
	}
	if known.Version > d.Version || known.Version == d.Version && (!known.Outstanding() || known.Digest == d.Digest) {
		return false, nil
	}
	if known.Version != 0 && known.Outstanding() {
		if err := t.exec(ctx, "DELETE FROM delivery WHERE device = ? AND kind = ? AND delivered_at IS NULL", r.id, textOf(&d.Kind)); err != nil {
			return false, err
		}
		if err := t.dropPayload(ctx, known.Digest); err != nil {
			return false, err
		}
	}
	if err := t.exec(ctx, "INSERT INTO payload (sha256, data) VALUES (?, ?) ON CONFLICT DO NOTHING", digest{&d.Digest}, d.Payload); err != nil {
		return false, err
	}
	next := enrol.NewDelivery(d.Device, d.Kind, d.Version, d.Payload, d.QueuedAt)
	if err := t.exec(ctx, insertDelivery, values(deliveryColumns(&next), r.id)...); err != nil {
		return false, err
	}
	return true, t.putEvent(ctx, &enrol.Event{At: d.QueuedAt, Device: d.Device, Kind: enrol.EventQueued, Message: d.String()})
}

const deletePayload = "DELETE FROM payload WHERE sha256 = ?1 AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.payload = ?1 AND delivered_at IS NULL)"

// dropPayload removes a payload if nobody waits for it any more.
func (t *tx) dropPayload(ctx context.Context, sum [32]byte) error {
	return t.exec(ctx, deletePayload, digest{&sum})
}

// OutstandingDeliveries implements enrol.DeliveryStore.
func (s *Store) OutstandingDeliveries(ctx context.Context, device string) ([]enrol.Delivery, error) {
	var out []enrol.Delivery
	err := s.scan(ctx, selectOutstanding, []any{device}, func(rows *sql.Rows) error {
		d := enrol.Delivery{Device: device}
		err := rows.Scan(append(values(deliveryColumns(&d)), blob{&d.Payload})...)
		out = append(out, d)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("deliveries to %s: %w", device, explain(err))
	}
	slices.SortFunc(out, enrol.CompareDeliveries)
	return out, nil
}

// Outstanding returns what is outstanding for any device, without payloads, in
// the order of the devices' names.
func (s *Store) Outstanding(ctx context.Context) ([]enrol.Delivery, error) {
	var out []enrol.Delivery
	err := s.scan(ctx, selectAllOutstanding, nil, func(rows *sql.Rows) error {
		var d enrol.Delivery
		err := rows.Scan(append(values(deliveryColumns(&d)), textOf(&d.Device))...)
		out = append(out, d)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("outstanding deliveries: %w", explain(err))
	}
	return out, nil
}

// deliveries returns what was ever queued for a device and not superseded.
func (v *view) deliveries(ctx context.Context, id int64, device string) ([]enrol.Delivery, error) {
	var out []enrol.Delivery
	err := v.scan(ctx, selectDelivered, []any{id}, func(rows *sql.Rows) error {
		d := enrol.Delivery{Device: device}
		err := rows.Scan(values(deliveryColumns(&d))...)
		out = append(out, d)
		return err
	})
	return out, err
}

// RecordDelivery implements enrol.DeliveryStore.
func (s *Store) RecordDelivery(ctx context.Context, a enrol.Attempt) error {
	err := s.writer.do(ctx, func(ctx context.Context, t *tx) error {
		r, err := t.record(ctx, a.Device)
		if err != nil {
			return err
		}
		if err := t.raise(ctx, r, a.Identity); err != nil {
			return err
		}
		return t.attempt(ctx, r.id, a)
	})
	if err != nil {
		return fmt.Errorf("record delivery to %s: %w", a.Device, err)
	}
	return nil
}

// attempt stores what came of handing something over.
func (t *tx) attempt(ctx context.Context, device int64, a enrol.Attempt) error {
	var payload [32]byte
	err := t.queryRow(ctx, selectTried, []any{device, textOf(&a.Kind), integerOf(&a.Version)}, digest{&payload})
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	what := enrol.Delivery{Device: a.Device, Kind: a.Kind, Version: a.Version}.String()
	if a.Failure != "" {
		if err := t.exec(ctx, "UPDATE delivery SET tries = tries + 1, last_error = ? WHERE device = ? AND kind = ? AND delivered_at IS NULL",
			a.Failure, device, textOf(&a.Kind)); err != nil {
			return err
		}
		return t.putEvent(ctx, &enrol.Event{At: a.At, Device: a.Device, Kind: enrol.EventNotDelivered, By: enrol.PartyDevice, Message: what + ": " + a.Failure})
	}
	if a.At.IsZero() {
		return fmt.Errorf("%w: delivered at no time", store.ErrInvalid)
	}
	if err := t.exec(ctx, "UPDATE delivery SET delivered_at = ?, last_error = '' WHERE device = ? AND kind = ? AND delivered_at IS NULL",
		timestamp{&a.At}, device, textOf(&a.Kind)); err != nil {
		return err
	}
	if err := t.dropPayload(ctx, payload); err != nil {
		return err
	}
	return t.putEvent(ctx, &enrol.Event{At: a.At, Device: a.Device, Kind: enrol.EventDelivered, Message: what})
}

// raise makes an identity that the device proved the earliest that is
// accepted, if it is later.
func (t *tx) raise(ctx context.Context, r *record, id ibc.Identity) error {
	if id == (ibc.Identity{}) || id.Compare(r.device.Identity) <= 0 {
		return nil
	}
	if err := r.accept(id); err != nil {
		return err
	}
	return t.exec(ctx, "UPDATE device SET epoch = ?, generation = ? WHERE id = ?", id.Epoch, id.Generation, r.id)
}
