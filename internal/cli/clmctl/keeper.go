package clmctl

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/metrics"
	"github.com/edgeclm/edgeclm/internal/notify"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

// keeper looks after what goes on beside renewing: somebody is told of alerts,
// metrics are written and served, old history is dropped. What fails of it is
// logged and tried again; it neither fails a renewal nor delays a device. What
// is not configured is not done, and costs nothing.
type keeper struct {
	*app
	site     *site
	records  records
	identity string // of this CLM
	log      *slog.Logger
	notifier *notify.Notifier // nil: nobody is to be told
	holds    bool             // this process has the renewing lock

	mu      sync.Mutex
	pass    metrics.Pass          // the last one
	count   map[enrol.Outcome]int // of the loop since its last look
	noCA    bool                  // likewise
	looked  time.Time             // when that was
	touched time.Time             // when the lock was, by beat
}

// keeper returns who looks after a run. holds says whether the run has the
// renewing lock: who has it writes the textfile and drops old history.
func (a *app) keeper(s *site, w *works, log *slog.Logger, holds bool) *keeper {
	k := &keeper{app: a, site: s, records: w.inventory, identity: w.identity, log: log, holds: holds, count: map[enrol.Outcome]int{}}
	k.notifier = a.tellers(s, log)
	return k
}

// tellers returns who tells of alerts, nil if nobody is configured or can be: a
// mistake there is no reason to let certificates end.
func (a *app) tellers(s *site, log *slog.Logger) *notify.Notifier {
	n, err := a.notifier(s, log)
	switch {
	case err != nil:
		log.Error("nobody can be told of alerts", "error", err)
		return nil
	case len(n.Channels) == 0:
		return nil
	}
	return n
}

// How often and how long the keeper works, beside the loop.
const (
	keepEvery     = time.Minute
	gatherWithin  = 15 * time.Second // reading the facts, or the figures
	measureWithin = time.Minute      // those of each device
)

// measured has a pass's figures written to the textfile.
func (k *keeper) measured(ctx context.Context, p metrics.Pass) {
	k.mu.Lock()
	k.pass = p
	k.mu.Unlock()
	if ctx.Err() == nil && k.holds {
		k.writeTextfile(ctx)
	}
}

// after does what is left to do after a pass, within a bounded time: what could
// not be sent by then waits for the next.
func (k *keeper) after(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	k.tell(ctx)
	if k.holds {
		k.prune(ctx)
	}
}

// start has the keeper work beside a loop until stop is called, which waits for
// it. healthy returns why the loop does not work; nil if it does.
func (k *keeper) start(ctx context.Context, healthy func(context.Context) error) (stop func()) {
	tasks := []func(context.Context){
		k.telling,
		func(ctx context.Context) { every(ctx, keepEvery, time.Hour, k.prune) },
	}
	if k.site.Metrics.Textfile != "" {
		tasks = append(tasks, func(ctx context.Context) { every(ctx, 0, keepEvery, k.writeTextfile) })
	}
	if k.site.Metrics.Listen != "" {
		tasks = append(tasks, func(ctx context.Context) {
			every(ctx, 0, keepEvery, func(ctx context.Context) { k.serve(ctx, healthy) })
		})
	}
	return beside(ctx, tasks...)
}

// startTelling has somebody told of alerts beside a pass, which may take hours.
func (k *keeper) startTelling(ctx context.Context) (stop func()) { return beside(ctx, k.telling) }

// telling gives what became due while nobody ran a minute to recover.
func (k *keeper) telling(ctx context.Context) {
	if k.notifier != nil {
		every(ctx, keepEvery, keepEvery, k.tell)
	}
}

// beside does tasks until stop is called, which waits for them.
func beside(ctx context.Context, tasks ...func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var all sync.WaitGroup
	for _, task := range tasks {
		all.Go(func() { task(ctx) })
	}
	return func() {
		cancel()
		all.Wait()
	}
}

// every does something after a first while and then again and again, with a
// pause in between, until ctx ends.
func every(ctx context.Context, first, pause time.Duration, do func(context.Context)) {
	timer := time.NewTimer(first)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			do(ctx)
			timer.Reset(pause)
		}
	}
}

// Started implements renewal.Observer.
func (*keeper) Started(string) {}

// Finished implements renewal.Observer.
func (k *keeper) Finished(r enrol.Result) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.count[r.Outcome]++
	k.noCA = k.noCA || renewal.Judge(r).NoCA
}

// Ticked implements renewal.Observer. For the metrics, what a loop has done from
// one look to the next is a pass.
func (k *keeper) Ticked(t renewal.Tick) {
	k.beat(t.At)
	k.mu.Lock()
	defer k.mu.Unlock()
	p := metrics.Pass{At: t.At, Count: k.count, OK: k.count[enrol.OutcomeFailed] == 0 && !k.noCA && t.Err == nil}
	if !k.looked.IsZero() {
		p.Took = max(0, t.At.Sub(k.looked))
	}
	k.pass, k.looked, k.count, k.noCA = p, t.At, map[enrol.Outcome]int{}, false
}

// keptWatcher shows that a pass goes on.
type keptWatcher struct {
	watcher
	*keeper
}

func (w keptWatcher) done(r enrol.Result) {
	w.beat(w.Now())
	w.watcher.done(r)
}
