package clmctl

import (
	"context"
	"log/slog"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

// watcher is told how a run goes on; calls do not overlap.
type watcher interface {
	begin(total int)
	done(r enrol.Result)
	end()
}

// batch tries the devices of a plan, several at once, each one once.
type batch struct {
	worker  renewal.Worker
	bounds  renewal.Bounds
	timeout time.Duration // of one device
	watch   watcher
	now     func() time.Time
}

func (a *app) batch(s *site, worker renewal.Worker, bounds renewal.Bounds, watch watcher) *batch {
	return &batch{worker: worker, bounds: bounds, timeout: s.Timeout, watch: watch, now: a.Now}
}

// run returns when every device has its outcome, or soon after ctx ends; then
// the devices that are left are pending.
func (b *batch) run(ctx context.Context, p *plan) *report {
	b.watch.begin(len(p.due))
	loop := renewal.NewLoop(renewal.Loop{
		Worker: b.worker, Observer: batchObserver{b.watch}, Bounds: b.bounds, Timeout: b.timeout, Now: b.now, Log: slog.New(slog.DiscardHandler),
	})
	pass := loop.Pass(ctx, p.due)
	b.watch.end()
	return newReport(p, pass)
}

// batchObserver lets a watcher see a pass.
type batchObserver struct{ watch watcher }

func (batchObserver) Started(string)            {}
func (o batchObserver) Finished(r enrol.Result) { o.watch.done(r) }
func (batchObserver) Ticked(renewal.Tick)       {}

// whyLeft says why devices were not tried.
func whyLeft(p renewal.Pass) string {
	switch {
	case p.Interrupted:
		return "not tried, since the run was interrupted"
	case p.Halt == renewal.HaltCA:
		return "not tried, since the CA is unavailable"
	case p.Halt == renewal.HaltMaintenance:
		return "not tried, since a maintenance window is open"
	case p.Halt == renewal.HaltCanary:
		return "not tried, since none of the first devices succeeded"
	case p.Halt == renewal.HaltFailures:
		return "not tried, since too many devices failed"
	}
	return "not tried"
}
