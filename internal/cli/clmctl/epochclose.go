package clmctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/provision"
	"github.com/edgeclm/edgeclm/internal/store"
)

type epochCloseOptions struct {
	epoch   uint32 // 0: the latest that is open
	abandon []string
	all     bool
	reason  string
}

func (a *app) epochCloseCommand() *cobra.Command {
	var o epochCloseOptions
	cmd := &cobra.Command{
		Use:   "close [EPOCH]",
		Short: "End an earlier epoch: its key is deleted, and no device of it is accepted",
		Long: `close deletes this CLM's key of an earlier epoch (the latest of them, unless it is
named) and of all before it. From then on no device that proves an identity of
these epochs is accepted, no manifest and no anchor statement of theirs; what
their devices signed before can still be verified. It cannot be undone.

It refuses while a device in service is behind, unless that one is named with
--abandon: its bundle then has to be carried there by hand. --abandon-all is for
all of them. What was abandoned is in the history of the device.`,
		Example: "  clmctl epoch close --reason 'master secret replaced, change 4711'\n  clmctl epoch close 1 --abandon plc-0003 --reason 'scrapped'",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				n, err := strconv.ParseUint(args[0], 10, 31)
				if err != nil || n == 0 {
					return clikit.Usage("%.20q is no epoch", args[0])
				}
				o.epoch = uint32(n)
			}
			s, err := a.openExisting(cmd)
			if err != nil {
				return err
			}
			return a.runEpochClose(cmd.Context(), s, o)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.abandon, "abandon", nil, "leave this device behind (repeat for more)")
	f.BoolVar(&o.all, "abandon-all", false, "leave all behind that are")
	f.StringVar(&o.reason, "reason", "", "why, in words, for the record")
	cmd.MarkFlagsMutuallyExclusive("abandon", "abandon-all")
	_ = cmd.RegisterFlagCompletionFunc("abandon", func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return a.offerDevices(cmd, typed), cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}

func (a *app) runEpochClose(ctx context.Context, s *site, o epochCloseOptions) (err error) {
	unlock, err := s.dir.lock()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	own, err := s.dir.identity()
	if err != nil {
		return err
	}
	defer own.Destroy()
	// A run that was cut has this left to do.
	if err := s.dir.wipeCredentials(own); err != nil {
		return err
	}
	if o.epoch == 0 {
		if o.epoch = latestOpen(own); o.epoch == 0 {
			a.note("no earlier epoch is open")
			return nil
		}
	}
	o.reason = strings.TrimSpace(clikit.OneLine(o.reason))
	next, err := own.Close(o.epoch, a.Now(), o.reason)
	if errors.Is(err, provision.ErrEpoch) {
		return clikit.WithHint(clikit.WithCode(err, clikit.ExitUsage), "clmctl epoch show lists the epochs")
	}
	if err != nil {
		return err
	}
	if next == nil {
		a.note("epoch %d is closed already", o.epoch)
		return nil
	}
	return s.dir.withInventory(ctx, func(devices inventory) error {
		return a.closeEpoch(ctx, s, devices, own, next, o)
	})
}

func latestOpen(own *provision.Endpoint) uint32 {
	for _, past := range slices.Backward(own.Earlier) {
		if past.Open() {
			return past.Params.Epoch()
		}
	}
	return 0
}

// closeEpoch makes next the CLM's identity. What is abandoned is on record
// before; the key goes in one step.
func (a *app) closeEpoch(ctx context.Context, s *site, devices inventory, own, next *provision.Endpoint, o epochCloseOptions) error {
	r, err := surveyEpochs(ctx, devices, own)
	if err != nil {
		return err
	}
	behind := r.behindIn(o.epoch)
	if err := o.mayAbandon(behind); err != nil {
		return err
	}
	for _, b := range behind {
		reason := fmt.Sprintf("left behind in epoch %d, which was closed", b.epoch)
		if o.reason != "" {
			reason += ": " + o.reason
		}
		if err := devices.Note(ctx, store.Action{Device: b.Name, At: a.Now(), Reason: reason}, store.EventAbandoned); err != nil {
			return err
		}
	}
	if err := s.dir.provision().Save(next); err != nil {
		return err
	}
	if err := s.dir.wipeCredentials(next); err != nil {
		return err
	}
	if r, err = surveyEpochs(ctx, devices, next); err != nil {
		return err
	}
	a.note("epoch %d is closed: its key is deleted, and no device of it is accepted any more", o.epoch)
	return clikit.Render(a.Out, a.Output, r.Epochs, epochTable(r.Epochs))
}

// mayAbandon refuses to leave devices behind that were not named, and to name
// devices that are not behind.
func (o epochCloseOptions) mayAbandon(behind []stragglerView) error {
	var left []string
	for _, b := range behind {
		if !o.all && !slices.Contains(o.abandon, b.Name) {
			left = append(left, b.Name)
		}
	}
	for _, name := range o.abandon {
		if !slices.ContainsFunc(behind, func(b stragglerView) bool { return b.Name == name }) {
			return clikit.WithHint(clikit.Usage("--abandon: %.70s is not behind", name), "clmctl epoch show lists who is")
		}
	}
	if len(left) == 0 {
		return nil
	}
	return clikit.WithHint(fmt.Errorf("%s %w: %s", devicesAre(len(left)), errBehind, few(left)),
		"clmctl epoch show says why; --abandon NAME leaves one behind")
}

func epochTable(epochs []epochView) clikit.Table {
	t := clikit.Table{Columns: clikit.Columns("epoch", "state", "devices", "identity", "params_id", "closed_at", "reason")}
	for _, e := range epochs {
		t.Rows = append(t.Rows, []string{
			strconv.FormatUint(uint64(e.Epoch), 10), e.State, strconv.Itoa(e.Devices), deref(e.Identity), e.ParamsID, deref(e.ClosedAt), deref(e.Reason),
		})
	}
	return t
}
