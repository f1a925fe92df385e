package enroltest

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Plant is a fleet of devices, a CA and the store of a CLM. It is the
// enrol.Dialer of its devices.
type Plant struct {
	Names   []string
	Devices map[string]*Device
	CA      *CA
	Store   *Store
	Now     func() time.Time
}

// CAName is the name of a plant's CA in the configuration.
const CAName = "lab"

// NewPlant returns a plant of n commissioned devices, plc-00000 and so on,
// that own no certificate yet.
func NewPlant(n int, now func() time.Time) (*Plant, error) {
	ca, err := NewCA("lab CA", now)
	if err != nil {
		return nil, err
	}
	p := &Plant{Devices: map[string]*Device{}, CA: ca, Now: now}
	rows := make([]fleet.Device, n)
	for i := range rows {
		id, err := ibc.NewIdentity(ibc.RoleDevice, fmt.Sprintf("plc-%05d", i), 1, 1)
		if err != nil {
			return nil, err
		}
		rows[i] = fleet.Device{Name: id.Name, Identity: id, Address: "192.0.2.1:5684"}
		p.Names = append(p.Names, id.Name)
		p.Devices[id.Name] = NewDevice(Stamp{id})
	}
	p.Store = NewStore(rows...)
	return p, nil
}

// Dial implements enrol.Dialer.
func (p *Plant) Dial(ctx context.Context, d fleet.Device) (enrol.Device, error) {
	device, ok := p.Devices[d.Name]
	if !ok {
		return nil, fmt.Errorf("%w: there is no %s", enrol.ErrUnreachable, d.Name)
	}
	return device.Dial(ctx, d)
}

// Runner returns a runner at the plant's CA, as one process would have it.
func (p *Plant) Runner(policy enrol.Policy) *enrol.Runner {
	return &enrol.Runner{
		Store: p.Store, Deliveries: p.Store, Sightings: p.Store, Health: p.Store, Dialer: p, CA: p.CA, CAName: CAName, Policy: policy,
		Params: Params, Now: p.Now, Random: rand.Reader, Log: slog.New(slog.DiscardHandler),
	}
}

// Params is enrol.Runner.Params for devices that sign with a Stamp.
func Params(uint32) (enrol.Verifier, error) { return Stamps{}, nil }
