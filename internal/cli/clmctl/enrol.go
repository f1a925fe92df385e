package clmctl

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/renewal"
	"github.com/edgeclm/edgeclm/internal/store"
)

func (a *app) enrolCommand() *cobra.Command {
	var o selection
	var g guard
	cmd := &cobra.Command{
		Use:     "enrol {NAME... | --selector k=v | --all}",
		Aliases: []string{"enroll"},
		Short:   "Obtain certificates for devices that own no valid one",
		Long: `enrol obtains a certificate for each selected device that owns no valid one; the
others are skipped and counted. Each device is tried once: what is left is for
the next run of enrol or renew.`,
		Example: "  clmctl enrol --all\n  clmctl enrol plc-0001.bilbao\n  clmctl enrol --selector line=3",
		RunE: func(cmd *cobra.Command, args []string) error {
			o.names = args
			if o.empty() {
				return clikit.WithHint(clikit.Usage("no device was named"), "give names, --selector k=v or --all")
			}
			s, err := a.openExisting(cmd)
			if err != nil {
				return err
			}
			bounds := s.bounds()
			if err := g.apply(&bounds); err != nil {
				return err
			}
			return a.runBatch(cmd.Context(), s, o, bounds, func(ctx context.Context, inventory inventory, f store.Filter) (*plan, error) {
				return planEnrol(ctx, inventory, f, a.Now(), s.Policy)
			}, nil)
		},
	}
	o.register(cmd, true)
	registerBatch(cmd)
	g.register(cmd)
	return cmd
}

// registerBatch adds the flags of a run over many devices.
func registerBatch(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Int(flagConcurrency, defaultConcurrency, "devices at once")
	f.Duration(flagTimeout, defaultTimeout, "how long one device may take")
}

// runBatch tries the devices that a plan takes of the selection, and reports.
// unlock gives the renewing lock back, nil if this run has none.
func (a *app) runBatch(ctx context.Context, s *site, o selection, bounds renewal.Bounds, plan planner, unlock func() error) (err error) {
	f, err := o.filter()
	if err != nil {
		return err
	}
	watch, log := a.progress()
	w, err := a.works(ctx, s, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	p, err := plan(ctx, w.inventory, f)
	if err != nil {
		return err
	}
	if p.checked() == 0 {
		a.note("no device was selected")
	}
	ca, err := w.inventory.Breaker(ctx, w.runner.CAName)
	if err != nil {
		return err
	}
	bounds.Doubt = ca.State != enrol.BreakerClosed
	keep := a.keeper(s, w, a.warnings(), unlock != nil)
	began, stop := a.Now(), keep.startTelling(ctx)
	r := a.batch(s, w.worker, bounds, keptWatcher{watch, keep}).run(ctx, p)
	stop()
	r.named = len(f.Names) > 0
	if err := a.renderReport(r); err != nil {
		return err
	}
	keep.measured(ctx, r.pass(began, a.Now()))
	if unlock != nil {
		// Nobody has to wait for notifications to renew.
		if err := unlock(); err != nil {
			return err
		}
	}
	keep.after(ctx)
	return r.err()
}
