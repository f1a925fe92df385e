package clmctl

import (
	"context"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

// rolloverWorker enrols each device at the CA that its stage of a rollover, and
// what it trusts, say.
type rolloverWorker struct {
	old, next renewal.Worker
	store     enrol.Store
	turnover  *turnover
	sightings enrol.SightingStore
}

// Run implements renewal.Worker.
func (w *rolloverWorker) Run(ctx context.Context, device string, force bool) enrol.Result {
	runner, err := w.choose(ctx, device)
	if err != nil {
		return enrol.Result{Device: device, Outcome: enrol.OutcomeFailed, Err: &enrol.Fault{
			By: enrol.PartyCLM, Class: enrol.ClassInternal, Transient: true, Err: err,
		}}
	}
	return runner.Run(ctx, device, force)
}

func (w *rolloverWorker) choose(ctx context.Context, device string) (renewal.Worker, error) {
	d, err := w.store.Device(ctx, device)
	if err != nil {
		return nil, err
	}
	seen, err := w.sightings.LastSighting(ctx, device)
	if err != nil {
		return nil, err
	}
	if w.turnover.issuesFromNew(seen, d) {
		return w.next, nil
	}
	return w.old, nil
}
