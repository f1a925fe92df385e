package clmctl

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/store"
)

func (a *app) deviceReleaseCommand() *cobra.Command {
	return a.actCommand(deviceAct{column: "released", reason: true, do: release}, &cobra.Command{
		Use:   "release {NAME... | --selector k=v} --reason TEXT",
		Short: "End the quarantine of devices, after its cause is fixed",
		Long: `release ends a quarantine, into which devices go after the configured number of
failed enrolments: failures count from zero again, and the next try may come at
once. The reason, which has to be given, stays in the devices' history. What has
failed, and why, is in clmctl device history NAME; what is wrong with a device
now, clmctl doctor --device NAME says.

A device that was not quarantined, but waits for its next try, may be tried at
once after it as well.`,
		Example: "  clmctl device release plc-0001 --reason 'its disk was full; logs are rotated now'",
	})
}

// release reports whether there was anything to end.
func release(ctx context.Context, devices inventory, d fleet.Device, action store.Action) (any, error) {
	return d.Quarantined || d.Attempts > 0 || !d.NextAttempt.IsZero(), devices.Release(ctx, action)
}
