package clmctl

import (
	"context"
	"fmt"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/provision"
	"github.com/edgeclm/edgeclm/internal/store"
)

// probeView is who answers at the address of a device.
type probeView struct {
	Name     string    `json:"name"`
	Address  *string   `json:"address"`
	Status   condition `json:"status"`
	Identity *string   `json:"identity"` // that was proved, or only claimed; null: none
	Note     *string   `json:"note"`
}

// probeCommissioned makes a handshake with each device, and nothing more.
func (a *app) probeCommissioned(ctx context.Context, s *site, own *provision.Endpoint, list []fleet.Device) ([]probeView, error) {
	dialer, err := a.quietDialer(s, own)
	if err != nil {
		return nil, err
	}
	said, err := knock(ctx, dialer, resolver(), list)
	if err != nil {
		return nil, err
	}
	out := make([]probeView, len(list))
	for i, k := range said {
		out[i] = probeView{Name: list[i].Name, Address: optional(list[i].Address), Status: k.condition}
		if k.Identity != (ibc.Identity{}) {
			out[i].Identity = optional(k.Identity.String())
		}
		if k.reason != nil && k.condition != noAnswer {
			out[i].Note = optional(clikit.OneLine(k.reason.Error()))
		}
	}
	return out, nil
}

// ofManifest returns the devices of a delivery as its manifest, and the
// addresses that override it, have them.
func ofManifest(d store.Delivery) []fleet.Device {
	out := make([]fleet.Device, len(d.Rows))
	at := map[string]int{}
	for i, r := range d.Rows {
		out[i] = fleet.Device{Name: r.Identity.Name, Identity: r.Identity, Address: r.Address}
		at[r.Identity.Name] = i
	}
	for _, a := range d.Addresses {
		if i, ok := at[a.Device]; ok && a.Address != "" {
			out[i].Address = a.Address
		}
	}
	return out
}

// ofInventory returns the devices of a delivery as the inventory has them,
// those that are in service.
func ofInventory(ctx context.Context, devices inventory, d store.Delivery) ([]fleet.Device, error) {
	var out []fleet.Device
	for _, r := range d.Rows {
		device, err := devices.Device(ctx, r.Identity.Name)
		if err != nil {
			return nil, err
		}
		if device.InService() {
			out = append(out, device)
		}
	}
	return out, nil
}

// dryResult is the result of commission --dry-run.
type dryResult struct {
	Devices int         `json:"devices"` // of the manifest
	Probed  []probeView `json:"probed"`  // null: nobody was contacted
}

// dryCommission says who is where, and takes nothing into the inventory.
func (a *app) dryCommission(ctx context.Context, s *site, own *provision.Endpoint, d store.Delivery, probe bool) error {
	r := dryResult{Devices: len(d.Rows)}
	if probe {
		var err error
		if r.Probed, err = a.probeCommissioned(ctx, s, own, ofManifest(d)); err != nil {
			return err
		}
	}
	if a.Output.Structured() {
		if err := clikit.Render(a.Out, a.Output, r, clikit.Table{}); err != nil {
			return err
		}
		return probeErr(r.Probed)
	}
	a.note("the manifest is in order, with %s; nothing was recorded", devices(len(d.Rows)))
	if err := a.renderProbed(r.Probed); err != nil {
		return err
	}
	return probeErr(r.Probed)
}

func (a *app) renderProbed(probed []probeView) error {
	if probed == nil {
		return nil
	}
	t := clikit.Table{Columns: clikit.Columns("name", "address", "status", "identity", "note")}
	for _, p := range probed {
		t.Rows = append(t.Rows, []string{p.Name, deref(p.Address), string(p.Status), deref(p.Identity), deref(p.Note)})
	}
	return clikit.Render(a.Out, a.Output, nil, t)
}

// probeErr is how a command ends that contacted devices.
func probeErr(probed []probeView) error {
	missing, hint := 0, ""
	for _, p := range probed {
		if p.Status == answersAsItself {
			continue
		}
		if missing++; hint == "" {
			hint = p.Name + ": " + p.Status.remedy(p.Name)
		}
	}
	if missing == 0 {
		return nil
	}
	return clikit.WithHint(clikit.WithCode(fmt.Errorf("%d of %s not in place, or not answering as themselves", missing, devices(len(probed))), clikit.ExitSomeFailed), hint)
}
