package clmctl

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/store"
)

func (a *app) deviceDeliverCommand() *cobra.Command {
	var (
		o     selection
		visit bool
	)
	cmd := &cobra.Command{
		Use:   "deliver [NAME... | --selector k=v]",
		Short: "Hand over what waits for devices: later identities, trust anchors",
		Long: `deliver visits the devices for which something is queued (commission queues the
bundles of later identities, ca rollover trust anchors) and hands it over. What
is queued stays so until a device has it. enrol and renew do the same in passing;
deliver asks no CA.

With --visit it also visits the devices for which nothing waits, and (without
handing anything over to them) those that are paused. A device that
has seen the key of this CLM once refuses every earlier one from then on: that
is the quickest answer to a stolen one.`,
		Example: "  clmctl device deliver\n  clmctl device deliver --visit --selector line=3",
		RunE: func(cmd *cobra.Command, args []string) error {
			o.names = args
			s, err := a.openExisting(cmd)
			if err != nil {
				return err
			}
			return a.runDeviceDeliver(cmd.Context(), s, o, visit)
		},
	}
	o.register(cmd, false)
	registerBatch(cmd)
	cmd.Flags().BoolVar(&visit, "visit", false, "visit also the devices for which nothing waits")
	return cmd
}

func (a *app) runDeviceDeliver(ctx context.Context, s *site, o selection, visit bool) (err error) {
	f, err := o.filter()
	if err != nil {
		return err
	}
	identity, err := s.dir.identity()
	if err != nil {
		return err
	}
	defer identity.Destroy()
	devices, err := s.dir.inventory(ctx, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, devices.Close()) }()
	selected, err := store.Collect(devices.ListDevices(ctx, f))
	if err != nil {
		return explainUnknown(err)
	}
	names := make([]string, len(selected))
	for i, d := range selected {
		names[i] = d.Name
	}
	if !visit {
		if names, err = somethingWaits(ctx, devices, names); err != nil {
			return err
		}
		if len(names) == 0 {
			a.note("nothing is queued")
		}
	}
	r, err := a.deliverTo(ctx, s, identity, devices, names, visit)
	if err != nil {
		return err
	}
	if err := a.renderReport(r); err != nil {
		return err
	}
	return r.err()
}

// deliveryView is something that is queued for a device, or that it got.
type deliveryView struct {
	Kind        enrol.DeliveryKind `json:"kind"`
	Identity    *string            `json:"identity"` // of a bundle
	Version     uint64             `json:"version"`
	SHA256      string             `json:"sha256"`
	QueuedAt    *string            `json:"queued_at"`
	DeliveredAt *string            `json:"delivered_at"` // null: it waits
	Tries       int                `json:"tries"`        // that failed
	LastError   *string            `json:"last_error"`
}

func viewDeliveries(deliveries []enrol.Delivery) []deliveryView {
	out := []deliveryView{}
	for _, d := range deliveries {
		v := deliveryView{
			Kind: d.Kind, Version: d.Version, SHA256: fmt.Sprintf("%x", d.Digest), QueuedAt: optionalTime(d.QueuedAt),
			DeliveredAt: optionalTime(d.DeliveredAt), Tries: d.Tries, LastError: optional(d.LastError),
		}
		if d.Kind == enrol.DeliverBundle {
			v.Identity = optional(d.Identity().String())
		}
		out = append(out, v)
	}
	return out
}

// waitingFor says in words what waits for a device.
func waitingFor(deliveries []enrol.Delivery) string {
	var lines []string
	for _, d := range deliveries {
		if !d.Outstanding() {
			continue
		}
		text := fmt.Sprintf("%s, queued at %s", d, stamp(d.QueuedAt))
		if d.Tries > 0 {
			text += fmt.Sprintf(", tried %d times: %s", d.Tries, d.LastError)
		}
		lines = append(lines, clikit.OneLine(text))
	}
	return few(lines)
}
