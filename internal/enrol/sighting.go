package enrol

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Sighting is what a device said of its trust anchors, on a channel on which it
// had proved its identity.
type Sighting struct {
	Device   string
	Identity ibc.Identity // the one that it had
	At       time.Time    // zero: it was never asked
	Anchors  [][32]byte   // SHA-256 of them
	Serial   uint64       // of the anchor statement that it accepted last; 0: none
}

// Of reports whether the sighting still is of the device that the inventory has
// under that name: a later identity may be a replacement, whose anchors nobody
// has seen.
func (s Sighting) Of(d fleet.Device) bool {
	return !s.At.IsZero() && s.Identity.Compare(d.Identity) >= 0
}

// Lists reports whether one of these anchors is among the device's.
func (s Sighting) Lists(anchors ...[32]byte) bool {
	return slices.ContainsFunc(anchors, func(a [32]byte) bool { return slices.Contains(s.Anchors, a) })
}

// same reports whether a device said the same twice.
func (s Sighting) same(t Sighting) bool {
	return s.Identity == t.Identity && s.Serial == t.Serial && slices.Equal(s.Anchors, t.Anchors)
}

// SightingStore keeps the last sighting of each device.
type SightingStore interface {
	// PutSighting stores what a device said last. An error wraps ErrNotFound
	// for an unknown device.
	PutSighting(ctx context.Context, s Sighting) error
	// LastSighting returns what a device said last; with a zero time if it was
	// never asked. An error wraps ErrNotFound for an unknown device.
	LastSighting(ctx context.Context, device string) (Sighting, error)
}

// sighting is what a status of a device with a proven identity says.
func sighting(device string, id ibc.Identity, status DeviceStatus, now time.Time) Sighting {
	return Sighting{Device: device, Identity: id, At: now, Anchors: status.Anchors, Serial: status.AnchorSerial}
}

// saw records what a status says of the anchors, if it is news.
func saw(ctx context.Context, to SightingStore, device string, id ibc.Identity, status DeviceStatus, now time.Time) error {
	if to == nil {
		return nil
	}
	next := sighting(device, id, status, now)
	last, err := to.LastSighting(ctx, device)
	if err == nil && (last.At.IsZero() || !last.same(next)) {
		err = to.PutSighting(ctx, next)
	}
	if err != nil {
		return fmt.Errorf("record the trust anchors of %s: %w", device, err)
	}
	return nil
}

// Visitor asks devices for their trust anchors, brings what is missing, and
// records what they then say. It hands over what else is queued in passing. Its
// fields are set once; it is safe for concurrent use on different devices.
type Visitor struct {
	Courier
	// Change is what a device lacks as long as its sighting does not fit.
	Change func(device string) AnchorChange
	Fits   func(s Sighting) bool
}

// errUnfitting is why a visit failed though the device took everything.
var errUnfitting = errors.New("the device took the change of its trust anchors, but lists others")

// Run visits one device. It never works on a paused one; force is of no meaning.
func (v *Visitor) Run(ctx context.Context, device string, _ bool) Result {
	return v.visit(ctx, device, true, func(h *handover, waiting []Delivery) error {
		if err := h.run(ctx, waiting); err != nil {
			return err
		}
		if h.dev == nil {
			return h.failure
		}
		seen, err := v.ask(ctx, h)
		if err != nil || v.Fits(seen) {
			return err
		}
		// What was delivered before may be lost: the device was replaced.
		if err := h.dev.DeliverAnchors(ctx, v.Change(device)); err != nil {
			return fmt.Errorf("change the trust anchors: %w", err)
		}
		if seen, err = v.ask(ctx, h); err == nil && !v.Fits(seen) {
			err = errUnfitting
		}
		return err
	})
}

// ask reads a device's trust anchors and records them, with the time.
func (v *Visitor) ask(ctx context.Context, h *handover) (Sighting, error) {
	status, err := h.status(ctx)
	if err != nil {
		return Sighting{}, fmt.Errorf("read the trust anchors: %w", err)
	}
	seen := sighting(h.d.Name, h.dev.Identity(), status, v.Now())
	return seen, v.Sightings.PutSighting(ctx, seen)
}
