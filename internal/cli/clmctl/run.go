package clmctl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/renewal"
	"github.com/edgeclm/edgeclm/internal/sdnotify"
	"github.com/edgeclm/edgeclm/internal/store"
)

func (a *app) runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Renew certificates for as long as it runs, as a service",
		Long: `run is "watch" without a screen: it renews whatever is due, as soon as it is due
and the CA's limits allow, until it is told to end (SIGTERM or SIGINT); then it
finishes the devices that it is working on. It tells systemd that it works, and
feeds its watchdog (contrib/edgeclm-run.service).

One renewing run at a time holds the lock; enrol and every other command may be
used meanwhile. Each device's outcome is a line on standard error.`,
		Example: "  clmctl run\n  clmctl run --log-format json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.openExisting(cmd)
			if err != nil {
				return err
			}
			return a.runLoop(cmd.Context(), s)
		},
	}
	registerBatch(cmd)
	return cmd
}

// dueQueue is the inventory as the loop asks it.
type dueQueue struct {
	inventory
	openedFile
	policy enrol.Policy
}

// DueJobs implements renewal.Queue.
func (q dueQueue) DueJobs(ctx context.Context, now time.Time) ([]renewal.Job, error) {
	if err := q.present(); err != nil {
		return nil, err
	}
	return q.inventory.DueJobs(ctx, store.Filter{}, now, q.policy.LongestWait())
}

// loopGrace is how long devices that are being worked on may take when the loop
// is to end; what is not done then goes on at the next start.
const loopGrace = 5 * time.Minute

// newLoop puts the loop of run and watch together.
func (a *app) newLoop(s *site, w *works, watch renewal.Observer, log *slog.Logger) *renewal.Loop {
	return renewal.NewLoop(renewal.Loop{
		Queue: dueQueue{w.inventory, s.dir.openedFile(), w.runner.Policy}, Worker: w.worker, Observer: watch, Bounds: s.bounds(),
		Timeout: s.Timeout, Tick: s.Tick, Grace: loopGrace, Now: a.Now, Log: log,
	})
}

func (a *app) runLoop(ctx context.Context, s *site) (err error) {
	log := a.Logger(a.Err)
	manager, err := sdnotify.New(a.Getenv)
	if err != nil {
		log.Warn("service manager", "error", err)
	}
	unlock, err := a.lockRenewing(s)
	if err != nil {
		return a.explainLock(err, "one renewing run at a time: clmctl watch --view shows what that one does")
	}
	defer func() { err = errors.Join(err, unlock()) }()
	w, err := a.works(ctx, s, a.verboseLog(a.Err))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	pulse := &pulse{now: a.Now}
	keep := a.keeper(s, w, log, true)
	loop := a.newLoop(s, w, observers{logObserver{log}, pulse, keep}, log)
	healthy := func(context.Context) error { return pulse.alive(s.Tick) }
	stop := manager.Supervise(ctx, log, "renewing", healthy)
	defer stop()
	defer keep.start(ctx, healthy)()
	log.Info("renewing", "data_dir", string(s.dir), "ca", w.runner.CAName, "tick", s.Tick)
	loop.Run(ctx, nil)
	if err := manager.Notify(sdnotify.Stopping); err != nil {
		log.Warn("tell the service manager", "error", err)
	}
	log.Info("stopped")
	return nil
}

// observers are several of them.
type observers []renewal.Observer

// Started implements renewal.Observer.
func (o observers) Started(device string) {
	for _, each := range o {
		each.Started(device)
	}
}

// Finished implements renewal.Observer.
func (o observers) Finished(r enrol.Result) {
	for _, each := range o {
		each.Finished(r)
	}
}

// Ticked implements renewal.Observer.
func (o observers) Ticked(t renewal.Tick) {
	for _, each := range o {
		each.Ticked(t)
	}
}

// logObserver logs what becomes of devices.
type logObserver struct{ log *slog.Logger }

// Started implements renewal.Observer.
func (o logObserver) Started(device string) { o.log.Debug("device begins", "device", device) }

// Finished implements renewal.Observer.
func (o logObserver) Finished(r enrol.Result) {
	if errors.Is(r.Err, enrol.ErrNotNow) || errors.Is(r.Err, enrol.ErrLeased) {
		o.log.Debug("device left alone", "device", r.Device, "reason", r.Err.Error())
		return
	}
	(&logWatcher{o.log}).done(r)
}

// Ticked implements renewal.Observer.
func (o logObserver) Ticked(t renewal.Tick) {
	o.log.Debug("looked who is due", "due", t.Due, "running", t.Running)
}

// pulse knows whether the loop still looks who is due.
type pulse struct {
	now  func() time.Time
	last atomic.Pointer[renewal.Tick]
}

// Started implements renewal.Observer.
func (*pulse) Started(string) {}

// Finished implements renewal.Observer.
func (*pulse) Finished(enrol.Result) {}

// Ticked implements renewal.Observer.
func (p *pulse) Ticked(t renewal.Tick) {
	// What could not be read is no look, but the first one counts from then on.
	if t.Err == nil || p.last.Load() == nil {
		p.last.Store(&t)
	}
}

// alive returns why the loop does not work, nil if it does. Before its first
// look, and after the clock was put back, nobody can tell.
func (p *pulse) alive(tick time.Duration) error {
	last := p.last.Load()
	if last == nil {
		return nil
	}
	if age := p.now().Sub(last.At); age > 4*tick+time.Minute {
		return clikit.WithHint(fmt.Errorf("the loop has not looked who is due for %v", age.Round(time.Second)), "restart it")
	}
	return nil
}
