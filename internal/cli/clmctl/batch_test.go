package clmctl

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

// fakeWorker answers for each device what it is told.
type fakeWorker struct {
	result  func(ctx context.Context, device string) enrol.Result
	running atomic.Int32
	most    atomic.Int32

	mu    sync.Mutex
	tried []string
}

func (w *fakeWorker) Run(ctx context.Context, device string, _ bool) enrol.Result {
	n := w.running.Add(1)
	defer w.running.Add(-1)
	for old := w.most.Load(); n > old && !w.most.CompareAndSwap(old, n); old = w.most.Load() {
	}
	w.mu.Lock()
	w.tried = append(w.tried, device)
	w.mu.Unlock()
	return w.result(ctx, device)
}

func renewed(device string) enrol.Result {
	return enrol.Result{Device: device, Outcome: enrol.OutcomeRenewed, Enrolment: &enrol.Enrolment{}}
}

func failed(device string) enrol.Result {
	return enrol.Result{Device: device, Outcome: enrol.OutcomeFailed, Err: &enrol.Fault{By: enrol.PartyDevice, Class: enrol.ClassUnreachable, Err: enrol.ErrUnreachable}}
}

func noCA(device string) enrol.Result {
	return enrol.Result{Device: device, Outcome: enrol.OutcomePending, Err: &enrol.Fault{By: enrol.PartyCA, Class: enrol.ClassCAUnavail, Transient: true, Err: enrol.ErrCAUnavailable}}
}

func names(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("plc-%04d", i)
	}
	return out
}

func runFake(ctx context.Context, w *fakeWorker, p *plan, concurrency int) *report {
	b := &batch{worker: w, bounds: renewal.Limit(concurrency, fleet.Limits{}), timeout: time.Minute, watch: silentWatcher{}, now: time.Now}
	return b.run(ctx, p)
}

func TestBatchExitCodes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		results map[string]func(string) enrol.Result
		code    int
		summary string
	}{
		{"all renewed", map[string]func(string) enrol.Result{"a": renewed, "b": renewed}, clikit.ExitDone, "checked=3 due=2 renewed=2 failed=0 pending=0 skipped=1"},
		{"nothing due", nil, clikit.ExitDone, "checked=1 due=0 renewed=0 failed=0 pending=0 skipped=1"},
		{"one failed", map[string]func(string) enrol.Result{"a": renewed, "b": failed}, clikit.ExitSomeFailed, "checked=3 due=2 renewed=1 failed=1 pending=0 skipped=1"},
		{"all failed", map[string]func(string) enrol.Result{"a": failed}, clikit.ExitSomeFailed, "checked=2 due=1 renewed=0 failed=1 pending=0 skipped=1"},
		{"no CA", map[string]func(string) enrol.Result{"a": noCA, "b": renewed}, clikit.ExitUnavailable, "checked=3 due=2 renewed=1 failed=0 pending=1 skipped=1"},
		{"a failure goes before the CA", map[string]func(string) enrol.Result{"a": noCA, "b": failed}, clikit.ExitSomeFailed, "checked=3 due=2 renewed=0 failed=1 pending=1 skipped=1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := &plan{}
			p.skip("z", "it is paused")
			for device := range c.results {
				p.due = append(p.due, jobs(device)...)
			}
			w := &fakeWorker{result: func(_ context.Context, device string) enrol.Result { return c.results[device](device) }}
			r := runFake(context.Background(), w, p, 4)
			if r.summary() != c.summary {
				t.Errorf("summary %q", r.summary())
			}
			if code := clikit.ExitCode(r.err()); code != c.code {
				t.Errorf("exit code %d, want %d: %v", code, c.code, r.err())
			}
			if len(r.Devices) != r.Checked {
				t.Errorf("%d outcomes for %d devices", len(r.Devices), r.Checked)
			}
		})
	}
}

func TestBatchKeepsConcurrency(t *testing.T) {
	t.Parallel()
	const concurrency = 7
	var together sync.WaitGroup
	together.Add(concurrency)
	var arrived atomic.Int32
	w := &fakeWorker{result: func(_ context.Context, device string) enrol.Result {
		if arrived.Add(1) <= concurrency { // the first ones wait for each other
			together.Done()
			together.Wait()
		}
		return renewed(device)
	}}
	r := runFake(context.Background(), w, &plan{due: jobs(names(100)...)}, concurrency)
	if r.Renewed != 100 || len(w.tried) != 100 {
		t.Errorf("%d renewed, %d tried", r.Renewed, len(w.tried))
	}
	if most := w.most.Load(); most != concurrency {
		t.Errorf("%d at once, want %d", most, concurrency)
	}
}

// A CA that is down is not asked for a thousand devices, each of which would
// have to make a key pair first.
func TestBatchStopsAskingADeadCA(t *testing.T) {
	t.Parallel()
	w := &fakeWorker{result: func(_ context.Context, device string) enrol.Result { return noCA(device) }}
	r := runFake(context.Background(), w, &plan{due: jobs(names(1000)...)}, 4)
	if n := len(w.tried); n < renewal.DefaultStrikes || n > renewal.DefaultStrikes+4 {
		t.Errorf("%d devices were tried", n)
	}
	if r.Pending != 1000 || clikit.ExitCode(r.err()) != clikit.ExitUnavailable {
		t.Errorf("%s, %v", r.summary(), r.err())
	}
}

// In a maintenance window nobody is asked, and the run says so.
func TestBatchInMaintenance(t *testing.T) {
	t.Parallel()
	calendar, err := fleet.ParseCalendar([]string{"2026-12-24T00:00/2026-12-27T06:00"}, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	w := &fakeWorker{result: func(_ context.Context, device string) enrol.Result { return renewed(device) }}
	b := &batch{
		worker: w, bounds: renewal.Limit(4, fleet.Limits{Calendar: calendar}), timeout: time.Minute, watch: silentWatcher{},
		now: func() time.Time { return time.Date(2026, 12, 25, 0, 0, 0, 0, time.UTC) },
	}
	r := b.run(context.Background(), &plan{due: jobs(names(3)...)})
	if err := r.err(); r.Pending != 3 || len(w.tried) != 0 || clikit.ExitCode(err) != clikit.ExitUnavailable || err.Error() != "a maintenance window is open, and 3 devices left" {
		t.Errorf("%s, %v", r.summary(), err)
	}
}

// One device that the CA does not serve stops nothing.
func TestBatchGoesOnWhileTheCAAnswersOthers(t *testing.T) {
	t.Parallel()
	w := &fakeWorker{}
	w.result = func(_ context.Context, device string) enrol.Result {
		if device[len(device)-1] == '0' {
			return noCA(device)
		}
		return renewed(device)
	}
	r := runFake(context.Background(), w, &plan{due: jobs(names(100)...)}, 1)
	if r.Renewed != 90 || r.Pending != 10 {
		t.Error(r.summary())
	}
}

func TestBatchInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w := &fakeWorker{}
	w.result = func(_ context.Context, device string) enrol.Result {
		if device == "plc-0003" {
			cancel()
			return enrol.Result{Device: device, Outcome: enrol.OutcomePending, Err: context.Canceled}
		}
		return renewed(device)
	}
	r := runFake(ctx, w, &plan{due: jobs(names(10)...)}, 1)
	if r.Renewed != 3 || r.Pending != 7 || len(w.tried) != 4 {
		t.Errorf("%s, tried %v", r.summary(), w.tried)
	}
	if err := r.err(); clikit.ExitCode(err) != clikit.ExitFailed || err.Error() != "interrupted, 7 of 10 devices left" {
		t.Errorf("%v", err)
	}
}

func TestBatchGivesEachDeviceItsTimeout(t *testing.T) {
	t.Parallel()
	w := &fakeWorker{result: func(ctx context.Context, device string) enrol.Result {
		<-ctx.Done()
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return renewed(device)
		}
		return failed(device)
	}}
	b := &batch{worker: w, bounds: renewal.Bounds{Devices: 2}, timeout: time.Millisecond, watch: silentWatcher{}, now: time.Now}
	if r := b.run(context.Background(), &plan{due: jobs(names(4)...)}); r.Failed != 4 {
		t.Error(r.summary())
	}
}

// Whatever the devices do, each one that was checked has one outcome, and the
// exit code follows from the counts.
func TestReportCounts(t *testing.T) {
	t.Parallel()
	kinds := []func(string) enrol.Result{renewed, failed, noCA, func(device string) enrol.Result {
		return enrol.Result{Device: device, Outcome: enrol.OutcomeSkipped, Err: enrol.ErrLeased}
	}}
	rapid.Check(t, func(t *rapid.T) {
		p := &plan{due: jobs(names(rapid.IntRange(0, 20).Draw(t, "due"))...)}
		for i := range rapid.IntRange(0, 5).Draw(t, "skipped") {
			p.skip(fmt.Sprintf("skipped-%d", i), "it is paused")
		}
		answers := map[string]enrol.Result{}
		for _, j := range p.due {
			device := j.Device
			answers[device] = rapid.SampledFrom(kinds).Draw(t, device)(device)
		}
		w := &fakeWorker{result: func(_ context.Context, device string) enrol.Result { return answers[device] }}
		r := runFake(context.Background(), w, p, rapid.IntRange(1, 8).Draw(t, "concurrency"))
		if r.Checked != r.Renewed+r.Failed+r.Pending+r.Skipped || len(r.Devices) != r.Checked || r.Due != len(p.due) {
			t.Fatalf("%s, %d outcomes", r.summary(), len(r.Devices))
		}
		for i := 1; i < len(r.Devices); i++ {
			if r.Devices[i-1].Name >= r.Devices[i].Name {
				t.Fatalf("%s before %s", r.Devices[i-1].Name, r.Devices[i].Name)
			}
		}
		want := clikit.ExitDone
		switch {
		case r.Failed > 0:
			want = clikit.ExitSomeFailed
		case r.Pending > 0:
			want = clikit.ExitUnavailable
		}
		if got := clikit.ExitCode(r.err()); got != want {
			t.Fatalf("%s: exit code %d, want %d", r.summary(), got, want)
		}
	})
}
