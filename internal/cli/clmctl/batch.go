package clmctl

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
)

// caStrikes is how many devices in a row have to find the CA unavailable
// before a run stops asking it: each further one would cost its device a key
// pair, and itself a retry time, through no fault of its own.
const caStrikes = 3

// worker tries one device; *enrol.Runner and *enrol.Courier are such.
type worker interface {
	Run(ctx context.Context, device string, force bool) enrol.Result
}

// watcher is told how a run goes on; calls do not overlap.
type watcher interface {
	begin(total int)
	done(r enrol.Result)
	end()
}

// batch tries the devices of a plan, several at once, each one once.
type batch struct {
	worker      worker
	concurrency int
	timeout     time.Duration // of one device
	watch       watcher

	mu      sync.Mutex
	results []outcome
	strikes int  // devices in a row that found the CA unavailable
	down    bool // so the CA is not asked any more
	waiting int  // devices that wait for the CA
}

// run returns when every device has its outcome, or soon after ctx ends; then
// the devices that are left are pending.
func (b *batch) run(ctx context.Context, p *plan) *report {
	b.watch.begin(len(p.due))
	queue := make(chan string)
	var workers sync.WaitGroup
	for range min(b.concurrency, len(p.due)) {
		workers.Go(func() {
			for device := range queue {
				b.record(b.try(ctx, device, p.force))
			}
		})
	}
	for _, device := range p.due {
		queue <- device
	}
	close(queue)
	workers.Wait()
	b.watch.end()
	r := newReport(p, b.results)
	r.caUnavailable, r.interrupted = b.waiting > 0, ctx.Err() != nil && r.Pending > 0
	return r
}

// errCADown is why a device was not tried.
var errCADown = errors.New("not tried, since the CA is unavailable")

func (b *batch) try(ctx context.Context, device string, force bool) enrol.Result {
	if ctx.Err() != nil {
		return enrol.Result{Device: device, Outcome: enrol.OutcomePending, Err: errors.New("not tried, since the run was interrupted")}
	}
	b.mu.Lock()
	down := b.down
	b.mu.Unlock()
	if down {
		return enrol.Result{Device: device, Outcome: enrol.OutcomePending, Err: &enrol.Fault{
			By: enrol.PartyCA, Class: enrol.ClassCAUnavail, Transient: true, Err: errCADown,
		}}
	}
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	return b.worker.Run(ctx, device, force)
}

func (b *batch) record(r enrol.Result) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case waitsForCA(r):
		b.waiting++
		b.strikes++
		b.down = b.down || b.strikes >= caStrikes
	case r.Outcome == enrol.OutcomeRenewed:
		b.strikes = 0
	}
	b.results = append(b.results, outcomeOf(r))
	b.watch.done(r)
}
