package clmctl

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/store"
)

// deviceAct is a decision of an operator about devices.
type deviceAct struct {
	column  string // names what do returns, in tables and JSON
	confirm string // the question that is asked about so many devices; "": none
	reason  bool   // it has to be given
	retired bool   // a device that is named may be out of service already
	// do takes the decision into the inventory.
	do func(ctx context.Context, devices inventory, d fleet.Device, action store.Action) (any, error)
}

// actCommand makes the command of an act.
func (a *app) actCommand(act deviceAct, cmd *cobra.Command) *cobra.Command {
	var o selection
	var reason string
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.names = args
		if o.empty() {
			return clikit.WithHint(clikit.Usage("no device was named"), "give names or --selector k=v")
		}
		if reason = strings.TrimSpace(clikit.OneLine(reason)); act.reason && reason == "" {
			return clikit.WithHint(clikit.Usage("no reason was given"), "say with --reason what was found and done, for the devices' history")
		}
		s, err := a.openExisting(cmd)
		if err != nil {
			return err
		}
		return a.runAct(cmd.Context(), s, o, act, reason)
	}
	o.register(cmd, false)
	cmd.Flags().StringVar(&reason, "reason", "", "why, in words, for the devices' history")
	return cmd
}

func (a *app) runAct(ctx context.Context, s *site, o selection, act deviceAct, reason string) (err error) {
	f, err := o.filter()
	if err != nil {
		return err
	}
	inventory, err := s.dir.inventory(ctx, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inventory.Close()) }()
	f.Decommissioned = act.retired && len(f.Names) > 0
	selected, err := store.Collect(inventory.ListDevices(ctx, f))
	if err != nil {
		return explainUnknown(err)
	}
	if err := a.confirmAct(act, selected); err != nil {
		return err
	}
	out := []section{}
	t := clikit.Table{Columns: clikit.Columns("name", act.column)}
	for _, d := range selected {
		result, err := act.do(ctx, inventory, d, store.Action{Device: d.Name, At: a.Now(), Reason: reason})
		if err != nil {
			return err
		}
		out = append(out, section{{"name", d.Name}, {act.column, result}})
		t.Rows = append(t.Rows, []string{d.Name, cell(result)})
	}
	if len(out) == 0 {
		a.note("no device was selected")
	}
	return clikit.Render(a.Out, a.Output, out, t)
}

// confirmAct asks about those devices that an act would change.
func (a *app) confirmAct(act deviceAct, selected []fleet.Device) error {
	var names []string
	for _, d := range selected {
		if d.InService() {
			names = append(names, d.Name)
		}
	}
	if act.confirm == "" || len(names) == 0 {
		return nil
	}
	ok, err := a.Confirm(a.Streams, act.confirm+" "+few(names)+"?")
	if err == nil && !ok {
		err = errors.New("not confirmed; nothing was done")
	}
	return err
}
