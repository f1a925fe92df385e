package enrol

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/edgeclm/edgeclm/internal/ibc"
)

// DeliveryKind says what is handed over to a device.
type DeliveryKind string

// The kinds of delivery, in the order in which a device gets them. Before a
// lifeboat there is no device to give the others to; a bundle is the last, since
// the device has another identity afterwards.
const (
	DeliverLifeboat    DeliveryKind = "lifeboat"          // another root of trust: statement and sealed bundle
	DeliverAnchors     DeliveryKind = "anchors"           // the PKG's statement of the whole set of trust anchors
	DeliverCrossSigned DeliveryKind = "cross-signed-root" // one more trust anchor, DER
	DeliverBundle      DeliveryKind = "bundle"            // a later identity, sealed to the device
)

// deliveryOrder is that order.
func deliveryOrder() []DeliveryKind {
	return []DeliveryKind{DeliverLifeboat, DeliverAnchors, DeliverCrossSigned, DeliverBundle}
}

// MaxDelivery bounds what is handed over in one piece, in bytes: a bundle with
// the longest names and eight trust anchors.
const MaxDelivery = 72 << 10

// ErrDelivery is wrapped by what Delivery.Validate refuses.
var ErrDelivery = errors.New("not a delivery")

// Delivery is something that waits to be handed over to a device, or has been.
type Delivery struct {
	Device string
	Kind   DeliveryKind
	// Version orders the deliveries of one kind to one device: a later one
	// supersedes those before. Of a bundle it is BundleVersion, of anchors the
	// statement's serial number, as of a lifeboat, of a cross-signed root what who queues it
	// counts.
	Version     uint64
	Payload     []byte   // no secret without the recipient's key; nil once delivered
	Digest      [32]byte // SHA-256 of Payload
	QueuedAt    time.Time
	DeliveredAt time.Time // zero while outstanding
	Tries       int       // that failed
	LastError   string    // of the last of them; "" if there was none
}

// NewDelivery returns a delivery that is ready to be queued.
func NewDelivery(device string, kind DeliveryKind, version uint64, payload []byte, at time.Time) Delivery {
	return Delivery{Device: device, Kind: kind, Version: version, Payload: payload, Digest: sha256.Sum256(payload), QueuedAt: at}
}

// BundleVersion is the version of an identity's bundle: (epoch, generation) as
// one number in the same order.
func BundleVersion(id ibc.Identity) uint64 { return uint64(id.Epoch)<<32 | uint64(id.Generation) }

// Outstanding reports whether the device has yet to get it.
func (d Delivery) Outstanding() bool { return d.DeliveredAt.IsZero() }

// Identity is the identity that a bundle gives its device; the zero Identity
// for the other kinds.
func (d Delivery) Identity() ibc.Identity {
	if d.Kind != DeliverBundle {
		return ibc.Identity{}
	}
	return ibc.Identity{
		Role: ibc.RoleDevice, Name: d.Device,
		Epoch: uint32(d.Version >> 32), Generation: uint32(d.Version & math.MaxUint32),
	}
}

// String names the delivery in words.
func (d Delivery) String() string {
	switch d.Kind {
	case DeliverBundle:
		return fmt.Sprintf("the bundle of %s", d.Identity())
	case DeliverLifeboat:
		return fmt.Sprintf("lifeboat %d", d.Version)
	case DeliverAnchors:
		return fmt.Sprintf("trust anchors, serial %d", d.Version)
	case DeliverCrossSigned:
		return fmt.Sprintf("cross-signed root %d", d.Version)
	}
	return fmt.Sprintf("%s %d", d.Kind, d.Version)
}

// Validate reports, as an error that wraps ErrDelivery, what keeps a delivery
// out of the queue.
func (d Delivery) Validate() error {
	switch {
	case !slices.Contains(deliveryOrder(), d.Kind):
		return fmt.Errorf("%w: of the unknown kind %.40q to %s", ErrDelivery, d.Kind, d.Device)
	case d.Version == 0 || d.Version > math.MaxInt64:
		return fmt.Errorf("%w: %s of version %d to %s", ErrDelivery, d.Kind, d.Version, d.Device)
	case len(d.Payload) == 0 || len(d.Payload) > MaxDelivery:
		return fmt.Errorf("%w: %s of %d bytes to %s", ErrDelivery, d.Kind, len(d.Payload), d.Device)
	case d.Digest != sha256.Sum256(d.Payload):
		return fmt.Errorf("%w: the digest is not that of the %s to %s", ErrDelivery, d.Kind, d.Device)
	case d.Kind == DeliverBundle:
		if err := d.Identity().Validate(); err != nil {
			return fmt.Errorf("%w: %w", ErrDelivery, err)
		}
	}
	return nil
}

// CompareDeliveries orders what is handed over to one device.
func CompareDeliveries(a, b Delivery) int {
	order := deliveryOrder()
	return cmp.Or(cmp.Compare(slices.Index(order, a.Kind), slices.Index(order, b.Kind)), cmp.Compare(a.Version, b.Version))
}

// DeliveryStore is the durable queue of deliveries. Of each kind a device has
// at most one outstanding.
type DeliveryStore interface {
	// QueueDeliveries stores deliveries in one transaction, or nothing of it,
	// and returns how many of them are new. One that the device has already,
	// or of an earlier version than a known one, is left out; the same version
	// with another payload replaces the outstanding one; a later version
	// supersedes it. So the same call may be repeated. A bundle is left out if
	// the device has proved that identity or a later one. Errors wrap
	// ErrNotFound for an unknown device and ErrDelivery.
	QueueDeliveries(ctx context.Context, deliveries []Delivery) (queued int, err error)
	// OutstandingDeliveries returns what a device has yet to get, with payloads,
	// in the order of CompareDeliveries.
	OutstandingDeliveries(ctx context.Context, device string) ([]Delivery, error)
	// RecordDelivery stores what came of handing over, in one transaction. A
	// delivery that is no longer outstanding is left alone.
	RecordDelivery(ctx context.Context, a Attempt) error
}

// Attempt is one try to hand something over; without Kind and Version it just
// says whom we met.
type Attempt struct {
	Device  string
	Kind    DeliveryKind
	Version uint64
	At      time.Time
	Failure string // in words; "": the device has it
	// Identity is the one that the device proved, stored if it is later than
	// the inventory's; the zero Identity changes nothing.
	Identity ibc.Identity
}
