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

--canary and --max-failures keep a mistake from reaching the whole fleet: a run
that they stop leaves the other devices as they are.`,
		Example: "  clmctl renew\n  clmctl renew --force --all --canary 3 --max-failures 5%\n  clmctl renew -o json --if-locked=ok",
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
	return nil
}

func (a *app) runRenew(ctx context.Context, s *site, o renewOptions) (err error) {
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
	bounds := s.bounds()
	if err := o.apply(&bounds); err != nil {
		return err
	}
	return a.runBatch(ctx, s, o.selection, bounds, func(ctx context.Context, w *works, f store.Filter) (*plan, error) {
		if o.force {
			return planForced(ctx, w.inventory, f)
		}
		return planRenew(ctx, w.inventory, f, a.Now(), w.runner.Policy)
	}, unlock)
}
