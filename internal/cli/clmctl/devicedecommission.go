package clmctl

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/store"
)

func (a *app) deviceDecommissionCommand() *cobra.Command {
	return a.actCommand(deviceAct{
		column: "decommissioned", confirm: "Take out of service, with all that is under way for it:", reason: true, retired: true, do: decommission,
	}, &cobra.Command{
		Use:   "decommission {NAME... | --selector k=v} --reason TEXT",
		Short: "Take devices out of service for good",
		Long: `decommission takes devices out of service: nobody renews or contacts them any
more, no list but "device list --state decommissioned" has them, and no count
includes them. An enrolment that is under way ends, what waits to be handed over
is withdrawn, and the asset is free for another device. Their history stays. A
device that somebody works on at this moment is not waited for.

It does not reach the device: what it holds it keeps. Wipe it with devagent reset
if it leaves the plant. Its certificate is good until it ends, unless the CA
revokes it; "device show NAME" has its serial number.

A device comes back when the PKG issues for its name again and the manifest is
commissioned, or, as it was, by commission --reinstate.`,
		Example: "  clmctl device decommission plc-0003 --reason 'scrapped, ticket 4711' --yes",
	})
}

// decommission reports whether the device was in service.
func decommission(ctx context.Context, devices inventory, d fleet.Device, action store.Action) (any, error) {
	return d.InService(), devices.Decommission(ctx, action)
}
