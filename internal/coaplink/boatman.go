package coaplink

import (
	"context"
	"errors"
	"fmt"

	"github.com/edgeclm/edgeclm/internal/fleet"
)

// DeliverLifeboat implements enrol.Boatman: it brings a lifeboat to whoever
// answers at the device's address, as a stranger. Neither side proves anything,
// since a thief of the master secret may have seen to it that neither can. So no
// error does not mean that the device has it: whoever is in between may have
// swallowed it. It is sealed to the device, and no secret.
func (d *Dialer) DeliverLifeboat(ctx context.Context, device fleet.Device, payload []byte) (err error) {
	stranger, err := newStranger()
	if err != nil {
		return err
	}
	l, err := d.reach(ctx, device, func(ctx context.Context, device fleet.Device) (*link, error) {
		return d.dial(ctx, device, stranger)
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	if err := l.DeliverBundle(ctx, payload); err != nil {
		return fmt.Errorf("lifeboat: %w", err)
	}
	return nil
}
