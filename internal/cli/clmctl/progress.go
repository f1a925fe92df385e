package clmctl

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
)

// progress returns who watches a run, and the logger that goes with it: a bar
// on a terminal, log lines in JSON if those are wanted, else plain lines. The
// core's own log lines are for -v: what they say of a device is in its outcome.
func (a *app) progress() (watcher, *slog.Logger) {
	switch {
	case a.LogFormat == "json":
		log := a.Logger(a.Err)
		return &logWatcher{log: log}, log
	case a.Quiet:
		return silentWatcher{}, slog.New(slog.DiscardHandler)
	case a.Styled(a.Err):
		bar := &barWatcher{out: a.Err}
		return bar, a.verboseLog(bar)
	}
	return &lineWatcher{out: a.Err}, a.verboseLog(a.Err)
}

func (a *app) verboseLog(w io.Writer) *slog.Logger {
	if !a.Verbose {
		return slog.New(slog.DiscardHandler)
	}
	return a.Logger(w)
}

// line says in words what came of a device.
func line(r enrol.Result) string {
	text := string(r.Outcome)
	if r.Outcome == enrol.OutcomeRenewed && r.Enrolment != nil {
		text += fmt.Sprintf(" in %v", r.Enrolment.Steps.Total().Round(time.Millisecond))
	}
	if r.Err != nil {
		text += ": " + r.Err.Error()
	}
	return clikit.OneLine(r.Device + " " + text)
}

type silentWatcher struct{}

func (silentWatcher) begin(int)         {}
func (silentWatcher) done(enrol.Result) {}
func (silentWatcher) end()              {}

// lineWatcher writes a line for each device.
type lineWatcher struct {
	out          io.Writer
	count, total int
}

func (w *lineWatcher) begin(total int) { w.total = total }
func (w *lineWatcher) end()            {}

func (w *lineWatcher) done(r enrol.Result) {
	w.count++
	_, _ = fmt.Fprintf(w.out, "[%d/%d] %s\n", w.count, w.total, line(r))
}

// logWatcher logs each device.
type logWatcher struct{ log *slog.Logger }

func (w *logWatcher) begin(total int) { w.log.Info("run begins", "due", total) }
func (w *logWatcher) end()            {}

func (w *logWatcher) done(r enrol.Result) {
	args := []any{"device", r.Device, "outcome", r.Outcome}
	if r.Enrolment != nil {
		args = append(args, "enrolment", r.Enrolment.ID, "state", r.Enrolment.State)
	}
	if r.Err != nil {
		args = append(args, "error", r.Err.Error())
	}
	level := slog.LevelInfo
	if r.Outcome == enrol.OutcomeFailed {
		level = slog.LevelWarn
	}
	w.log.Log(context.Background(), level, "device done", args...)
}

// barWatcher draws a bar, and writes a line above it for each device that was
// not renewed. It is also where log lines go while the bar is there.
type barWatcher struct {
	out io.Writer

	mu  sync.Mutex
	bar *progressbar.ProgressBar
}

func (w *barWatcher) begin(total int) {
	if total == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bar = progressbar.NewOptions(total,
		progressbar.OptionSetWriter(w.out),
		progressbar.OptionSetDescription("devices"),
		progressbar.OptionShowCount(),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionFullWidth(),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionThrottle(100*time.Millisecond),
	)
}

func (w *barWatcher) done(r enrol.Result) {
	if r.Outcome != enrol.OutcomeRenewed && r.Outcome != enrol.OutcomeDelivered {
		_, _ = fmt.Fprintln(w, line(r))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.bar.Add(1)
}

func (w *barWatcher) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.bar != nil {
		_ = w.bar.Finish()
		w.bar = nil
	}
}

// Write writes lines above the bar.
func (w *barWatcher) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.bar != nil {
		_ = w.bar.Clear()
	}
	n, err := w.out.Write(p)
	if w.bar != nil {
		_ = w.bar.RenderBlank()
	}
	return n, err
}
