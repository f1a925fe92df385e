package enrol

import (
	"context"

	"github.com/edgeclm/edgeclm/internal/fleet"
)

// Boatman brings lifeboats to devices with which no channel can be had that is
// authenticated: their root of trust is another one than ours.
type Boatman interface {
	// DeliverLifeboat hands a lifeboat statement with the device's sealed bundle
	// behind it to whoever answers at its address. That it was taken is known
	// once the device proves the bundle's identity to Dialer. Errors are
	// *DeviceError or wrap ErrUnreachable or ErrIdentity.
	DeliverLifeboat(ctx context.Context, d fleet.Device, payload []byte) error
}
