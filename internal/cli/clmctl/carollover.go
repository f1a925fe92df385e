package clmctl

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/store/oslock"
)

func (a *app) caRolloverCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rollover",
		Short: "Move the fleet from the CA in use to another one, in stages",
		Long: `A rollover moves the whole fleet to another CA in three stages:

  trust-both      devices learn to trust the new CA beside the old one
  issue-from-new  certificates come from the new CA, for every device that is
                  known to trust it; the others keep the old one
  drop-old        devices forget the old CA

A stage ends with "next", once every device that is not paused has acknowledged
it: its list of trust anchors was read from itself, and its certificate from
the inventory. Until then "next" names the devices that hold it up. "back" is
the way back from each stage. The page docs/ca-rollover.md shows it all.`,
	}
	cmd.AddCommand(a.rolloverStartCommand(), a.rolloverStatusCommand(), a.rolloverNextCommand(), a.rolloverBackCommand())
	return cmd
}

type rolloverStartOptions struct {
	caAddOptions
	statements  []string
	crossSigned string
}

func (a *app) rolloverStartCommand() *cobra.Command {
	var o rolloverStartOptions
	cmd := &cobra.Command{
		Use:   "start URL (--statement FILE... | --cross-signed FILE)",
		Short: "Begin: make the devices trust the CA at URL too",
		Long: `start takes the new CA as "ca add" would, without using it yet, and makes the
devices trust it beside the old one: with statements of the PKG (pkg-offline
anchor) that list both, or with the new root as the old CA has signed it. What
is for devices that do not answer is queued; enrol, renew and "device deliver"
hand it over.`,
		Example: `  clmctl ca rollover start http://ca2.example/scep --statement usb/anchors-2.anchor.json --challenge-file challenge2 --fingerprint sha256:2f0c…`,
		Args:    cobra.ExactArgs(1),
		RunE: a.rolling(func(ctx context.Context, s *site, args []string) error {
			o.url = args[0]
			return a.startRollover(ctx, s, o)
		}),
	}
	o.register(cmd)
	f := cmd.Flags()
	f.StringArrayVar(&o.statements, "statement", nil, "anchor statement of the PKG that lists both CAs (repeat for more names)")
	f.StringVar(&o.crossSigned, "cross-signed", "", "file with the new root, signed by the old CA, in PEM or DER")
	cmd.MarkFlagsMutuallyExclusive("statement", "cross-signed")
	cmd.MarkFlagsOneRequired("statement", "cross-signed")
	registerBatch(cmd)
	return cmd
}

func (a *app) rolloverStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the stage, and the devices that hold it up",
		Long: `status shows what is on record; it asks nobody. Of a device that acknowledged
the stage, "ready" is true; "reason" says why another one did not.`,
		Example: "  clmctl ca rollover status\n  clmctl ca rollover status -o json",
		Args:    cobra.NoArgs,
		RunE:    a.rolling(func(ctx context.Context, s *site, _ []string) error { return a.showRollover(ctx, s) }),
	}
}

func (a *app) rolloverNextCommand() *cobra.Command {
	var statements []string
	cmd := &cobra.Command{
		Use:   "next [--statement FILE...]",
		Short: "Enter the next stage, or end the rollover, once all devices are ready",
		Long: `next asks the devices that have not acknowledged the stage yet. If one is left
that is not paused, nothing changes, and it is named (exit code 3).

The last stage, drop-old, takes statements of the PKG that list the new CA and
not the old one. When all devices have acknowledged it, next ends the rollover.`,
		Example: "  clmctl ca rollover next\n  clmctl ca rollover next --statement usb/anchors-3.anchor.json",
		Args:    cobra.NoArgs,
		RunE: a.rolling(func(ctx context.Context, s *site, _ []string) error {
			return a.alone(s, func() error { return a.nextStage(ctx, s, statements) })
		}),
	}
	cmd.Flags().StringArrayVar(&statements, "statement", nil, "anchor statement of the PKG that lists the new CA only (repeat for more names)")
	registerBatch(cmd)
	return cmd
}

func (a *app) rolloverBackCommand() *cobra.Command {
	var statements []string
	cmd := &cobra.Command{
		Use:   "back [--statement FILE...]",
		Short: "Return to the stage before, or give the rollover up",
		Long: `back returns from issue-from-new to trust-both: from then on certificates come
from the old CA again. From trust-both it gives the rollover up; with statements
of the PKG that list the old CA only, the devices forget the new one. From
drop-old it takes statements that list both CAs, since devices may have
forgotten the old one already, and returns to issue-from-new.`,
		Example: "  clmctl ca rollover back --yes",
		Args:    cobra.NoArgs,
		RunE: a.rolling(func(ctx context.Context, s *site, _ []string) error {
			return a.alone(s, func() error { return a.previousStage(ctx, s, statements) })
		}),
	}
	cmd.Flags().StringArrayVar(&statements, "statement", nil, "anchor statement of the PKG, with a serial number above the last one's (repeat for more names)")
	registerBatch(cmd)
	return cmd
}

// rolling opens the data directory for a subcommand and explains its errors.
func (a *app) rolling(run func(ctx context.Context, s *site, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		s, err := a.openExisting(cmd)
		if err != nil {
			return err
		}
		return explainRollover(run(cmd.Context(), s, args))
	}
}

// alone runs what must not happen while certificates are being renewed.
func (a *app) alone(s *site, run func() error) (err error) {
	unlock, err := oslock.RunLock(s.dir.path(renewLock), a.Now())
	if errors.Is(err, keyfile.ErrLocked) {
		return clikit.WithHint(clikit.WithCode(err, clikit.ExitLocked), "wait for it")
	}
	if err != nil {
		return fmt.Errorf("lock renewing runs: %w", err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	return run()
}

// Why a rollover cannot go on.
var (
	errNoRollover = errors.New("no rollover is under way")
	errRollover   = errors.New("a rollover is under way")
	errHeldUp     = errors.New("devices hold the rollover up")
)

func explainRollover(err error) error {
	switch {
	case errors.Is(err, errNoRollover):
		return clikit.WithHint(clikit.WithCode(err, clikit.ExitUsage), "begin one with clmctl ca rollover start URL --statement FILE")
	case errors.Is(err, errRollover):
		return clikit.WithHint(clikit.WithCode(err, clikit.ExitUsage), "clmctl ca rollover status shows it; finish it with next, or give it up with back")
	case errors.Is(err, errHeldUp):
		return clikit.WithHint(clikit.WithCode(err, clikit.ExitSomeFailed), "clmctl ca rollover status says why; a device that is gone for good can be left behind: clmctl device pause NAME")
	case errors.Is(err, errStatement), errors.Is(err, bundle.ErrFormat), errors.Is(err, bundle.ErrVersion):
		return clikit.WithHint(clikit.WithCode(err, clikit.ExitUsage), "make it with pkg-offline anchor --pattern PATTERN --ca FILE...")
	}
	return explainCA(explainBundle(err))
}
