package clmctl

import (
	"context"
	"errors"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/store"
)

func (a *app) devicePauseCommand() *cobra.Command {
	return a.pauseCommand(true, &cobra.Command{
		Use:   "pause {NAME... | --selector k=v}",
		Short: "Leave devices alone: no enrolment, no delivery",
		Long: `pause makes every run pass over devices: nobody enrols or renews them, or hands
anything over, and a CA rollover does not wait for them. What is queued for them
stays. resume ends it.`,
		Example: "  clmctl device pause plc-0001 --reason 'in the workshop'\n  clmctl device pause --selector line=3",
	})
}

func (a *app) deviceResumeCommand() *cobra.Command {
	return a.pauseCommand(false, &cobra.Command{
		Use:   "resume {NAME... | --selector k=v}",
		Short: "Work on paused devices again",
		Long: `resume ends a pause. What was queued for a device meanwhile is handed over before
its next enrolment, or by "device deliver".`,
		Example: "  clmctl device resume plc-0001",
	})
}

func (a *app) pauseCommand(pause bool, cmd *cobra.Command) *cobra.Command {
	var o selection
	var reason string
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.names = args
		if o.empty() {
			return clikit.WithHint(clikit.Usage("no device was named"), "give names or --selector k=v")
		}
		s, err := a.openExisting(cmd)
		if err != nil {
			return err
		}
		return a.runPause(cmd.Context(), s, o, pause, reason)
	}
	o.register(cmd, false)
	cmd.Flags().StringVar(&reason, "reason", "", "why, in words, for the devices' history")
	return cmd
}

// pausedView is the result of pause and resume for one device.
type pausedView struct {
	Name   string `json:"name"`
	Paused bool   `json:"paused"`
}

func (a *app) runPause(ctx context.Context, s *site, o selection, pause bool, reason string) (err error) {
	f, err := o.filter()
	if err != nil {
		return err
	}
	inventory, err := s.dir.inventory(ctx, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inventory.Close()) }()
	selected, err := store.Collect(inventory.ListDevices(ctx, f))
	if err != nil {
		return explainUnknown(err)
	}
	out := []pausedView{}
	t := clikit.Table{Columns: clikit.Columns("name", "paused")}
	for _, d := range selected {
		if err := inventory.SetPaused(ctx, store.Action{Device: d.Name, At: a.Now(), Reason: clikit.OneLine(reason)}, pause); err != nil {
			return err
		}
		out = append(out, pausedView{d.Name, pause})
		t.Rows = append(t.Rows, []string{d.Name, strconv.FormatBool(pause)})
	}
	if len(out) == 0 {
		a.note("no device was selected")
	}
	return clikit.Render(a.Out, a.Output, out, t)
}
