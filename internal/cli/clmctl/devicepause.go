package clmctl

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/store"
)

func (a *app) devicePauseCommand() *cobra.Command {
	return a.actCommand(pausing(true), &cobra.Command{
		Use:   "pause {NAME... | --selector k=v}",
		Short: "Leave devices alone: no enrolment, no delivery",
		Long: `pause makes every run pass over devices: nobody enrols or renews them, or hands
anything over, and a CA rollover does not wait for them. What is queued for them
stays. resume ends it.`,
		Example: "  clmctl device pause plc-0001 --reason 'in the workshop'\n  clmctl device pause --selector line=3",
	})
}

func (a *app) deviceResumeCommand() *cobra.Command {
	return a.actCommand(pausing(false), &cobra.Command{
		Use:   "resume {NAME... | --selector k=v}",
		Short: "Work on paused devices again",
		Long: `resume ends a pause. What was queued for a device meanwhile is handed over before
its next enrolment, or by "device deliver".`,
		Example: "  clmctl device resume plc-0001",
	})
}

func pausing(pause bool) deviceAct {
	return deviceAct{column: "paused", do: func(ctx context.Context, devices inventory, _ fleet.Device, action store.Action) (any, error) {
		return pause, devices.SetPaused(ctx, action, pause)
	}}
}
