package clmctl

import (
	"context"
	"errors"
	"sync"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/store"
)

type renewOptions struct {
	selection
	guard
	force    bool
	bridge   string
	dryRun   bool
	ifLocked string
}

func (a *app) renewCommand() *cobra.Command {
	var o renewOptions
	cmd := &cobra.Command{
		Use:   "renew [NAME... | --selector k=v | --all]",
		Short: "Renew the certificates that are due",
		Long: `renew takes the devices whose certificate is due for renewal or has expired, and
those with an unfinished enrolment; nothing being due is a success. It is meant
for cron or a systemd timer: one run at a time holds the lock.

With --force and --all, a selector or names it takes every one of these that is
neither paused nor quarantined, enrolled or not, at once.

With --bridge it takes those devices, due or not, whose certificates would end
before they can be renewed if the CA were gone from now until that time (see
clmctl runway), and no others.

--dry-run says who would be renewed, why and when, and what the CA would be
asked, and does nothing.

--canary and --max-failures keep a mistake from reaching the whole fleet: a run
that they stop leaves the other devices as they are.`,
		Example: "  clmctl renew\n  clmctl renew --force --all --canary 3 --max-failures 5%\n  clmctl renew -o json --if-locked=ok\n  clmctl renew --dry-run\n  clmctl renew --bridge 12h",
		RunE: func(cmd *cobra.Command, args []string) error {
			o.names = args
			if err := o.validate(); err != nil {
				return err
			}
			s, err := a.openExisting(cmd)
			if err != nil {
				return err
			}
			return a.runRenew(cmd.Context(), s, o)
		},
	}
	o.selection.register(cmd, true)
	registerBatch(cmd)
	o.guard.register(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.force, "force", false, "renew though nothing is due, and ignore retry times")
	f.StringVar(&o.bridge, flagBridge, "", "renew what would not last until a CA that goes away is back: a time, or 12h from now")
	f.BoolVar(&o.dryRun, "dry-run", false, "say what would be done, and do nothing")
	f.StringVar(&o.ifLocked, "if-locked", "fail", "what if another run holds the lock: fail (exit 4) or ok (exit 0)")
	_ = cmd.RegisterFlagCompletionFunc("if-locked", cobra.FixedCompletions([]string{"fail", "ok"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (o renewOptions) validate() error {
	if o.ifLocked != "fail" && o.ifLocked != "ok" {
		return clikit.Usage("--if-locked: %q is neither fail nor ok", o.ifLocked)
	}
	if o.force && o.empty() {
		return clikit.WithHint(clikit.Usage("--force needs to know for which devices"), "give names, --selector k=v or --all")
	}
	if o.bridge != "" && (o.force || !o.empty()) {
		return clikit.Usage("--%s finds the devices by itself: give no names, --selector, --all or --force", flagBridge)
	}
	return nil
}

const flagBridge = "bridge"

// planner returns how the options choose devices.
func (a *app) renewPlanner(s *site, o renewOptions) (planner, error) {
	switch {
	case o.bridge != "":
		until, err := parseWhen(flagBridge, o.bridge, a.Now())
		return func(ctx context.Context, inventory inventory, _ store.Filter) (*plan, error) {
			return a.planBridge(ctx, s, inventory, until)
		}, err
	case o.force:
		return planForced, nil
	}
	return func(ctx context.Context, inventory inventory, f store.Filter) (*plan, error) {
		return planRenew(ctx, inventory, f, a.Now(), s.Policy)
	}, nil
}

func (a *app) runRenew(ctx context.Context, s *site, o renewOptions) (err error) {
	bounds := s.bounds()
	if err := o.apply(&bounds); err != nil {
		return err
	}
	plan, err := a.renewPlanner(s, o)
	if err != nil {
		return err
	}
	if o.dryRun {
		return a.runDry(ctx, s, o.selection, bounds, plan)
	}
	unlock, err := a.lockRenewing(s)
	if errors.Is(err, keyfile.ErrLocked) {
		err = a.explainLock(err, "wait for it, or give --if-locked=ok")
		a.tellOfLock(ctx, s)
		if o.ifLocked == "ok" {
			a.note("nothing was done: %v", err)
			return nil
		}
	}
	if err != nil {
		return err
	}
	unlock = sync.OnceValue(unlock)
	defer func() { err = errors.Join(err, unlock()) }()
	return a.runBatch(ctx, s, o.selection, bounds, plan, unlock)
}
