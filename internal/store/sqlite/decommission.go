package sqlite

import (
	"context"
	"fmt"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/store"
)

// Decommission takes a device out of service: it is never due, no list has it
// that does not ask for such devices, and the census does not count it. Its open
// enrolment ends as failed, what waits to be handed over is withdrawn, and its
// asset is free for another one. Its history stays, and so does what the
// inventory says of its certificate, which nobody revokes by this. A device that
// is out of service already is left as it is.
//
// It takes no lease and waits for nobody: a device that is gone for good is
// likely to be in the hands of a run that waits for its answer. That run may
// still talk to the device, but whatever it commits from now on is refused with
// enrol.ErrDecommissioned, also what it began before: a certificate that the CA
// issues at this very moment is in the CA's records alone, and what the device
// has activated unconfirmed it rolls back by itself.
//
// PutDevices brings the device back (store.Delivery.Reinstate). It is then
// neither paused nor quarantined, its failures count from zero, and it renews
// its certificate at once, if it had one.
func (s *Store) Decommission(ctx context.Context, a store.Action) error {
	err := s.writer.do(ctx, func(ctx context.Context, t *tx) error {
		if a.At.IsZero() {
			return fmt.Errorf("%w: decommissioned at no time", store.ErrInvalid)
		}
		r, err := t.record(ctx, a.Device)
		if err != nil || !r.device.InService() {
			return err
		}
		if err := t.abandon(ctx, r, a); err != nil {
			return err
		}
		if err := t.withdraw(ctx, r); err != nil {
			return err
		}
		if err := t.exec(ctx, retireDevice, timestamp{&a.At}, r.id); err != nil {
			return err
		}
		if r.device.Asset != "" {
			unbind := commissioning{Delivery: store.Delivery{At: a.At, Source: "decommissioning"}}
			if err := unbind.bind(ctx, t, r.id, store.Asset{Device: a.Device}); err != nil {
				return err
			}
		}
		return t.putEvent(ctx, &enrol.Event{At: a.At, Device: a.Device, Kind: store.EventDecommissioned, Message: a.Reason})
	})
	if err != nil {
		return fmt.Errorf("decommission %s: %w", a.Device, err)
	}
	return nil
}

// retireDevice leaves no time in the row from which the device could be due:
// the indexes on those times need not know of its state.
const retireDevice = `UPDATE device SET decommissioned_at = ?, asset = NULL, open = 0, paused = 0, quarantined = 0,
	renew_at = NULL, attempts = 0, next_attempt = NULL, last_error = '' WHERE id = ?`

const (
	selectOpenOf = "SELECT id, state FROM enrolment WHERE device = ? AND " + openState
	endOpen      = `UPDATE enrolment SET state = 'failed', failed_by = ?, last_error = ?, next_try = NULL, updated_at = ?, revision = revision + 1 WHERE id = ?`
)

// abandon ends the device's open enrolment.
func (t *tx) abandon(ctx context.Context, r *record, a store.Action) error {
	if !r.open {
		return nil
	}
	const why = "the device was decommissioned"
	var id []byte
	end := enrol.Event{
		At: a.At, Device: a.Device, Kind: enrol.EventFailed, Class: enrol.ClassSuperseded, By: enrol.PartyCLM, Message: why,
	}
	if err := t.queryRow(ctx, selectOpenOf, []any{r.id}, &id, textOf(&end.State)); err != nil {
		return err
	}
	copy(end.Enrolment[:], id)
	if err := t.exec(ctx, endOpen, textOf(&end.By), why, timestamp{&a.At}, id); err != nil {
		return err
	}
	return t.putEvent(ctx, &end)
}

// Payloads are kept once each, and may be another device's as well.
const (
	dropWithdrawn = `DELETE FROM payload WHERE sha256 IN (SELECT payload FROM delivery WHERE device = ?1 AND delivered_at IS NULL)
	AND NOT EXISTS (SELECT 1 FROM delivery WHERE delivery.payload = payload.sha256 AND delivered_at IS NULL AND device <> ?1)`
	withdrawDeliveries = "DELETE FROM delivery WHERE device = ? AND delivered_at IS NULL"
)

// withdraw drops what waits to be handed over to a device.
func (t *tx) withdraw(ctx context.Context, r *record) error {
	if err := t.exec(ctx, dropWithdrawn, r.id); err != nil {
		return err
	}
	return t.exec(ctx, withdrawDeliveries, r.id)
}

// outOfService says that a device was decommissioned.
func (r *record) outOfService() error {
	return fmt.Errorf("device %s: %w", r.device.Name, enrol.ErrDecommissioned)
}
