package clmctl

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

func TestPlainProgress(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	a := &app{Streams: clikit.Streams{Err: &b, Getenv: func(string) string { return "" }}}
	watch, log := a.progress()
	log.Warn("the core's own lines are for -v")
	watch.begin(2)
	watch.done(renewed("a"))
	watch.done(enrol.Result{Device: "b", Outcome: enrol.OutcomeFailed, Err: fmt.Errorf("two\nlines \x1b[31m")})
	watch.end()
	const want = "[1/2] a renewed in 0s\n[2/2] b failed: two; lines [31m\n"
	if b.String() != want {
		t.Errorf("got %q", b.String())
	}
}

func TestQuietProgress(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	a := &app{Streams: clikit.Streams{Err: &b, Getenv: func(string) string { return "" }}}
	a.Quiet = true
	watch, log := a.progress()
	log.Error("nothing")
	watch.begin(1)
	watch.done(failed("a"))
	watch.end()
	if b.Len() > 0 {
		t.Errorf("got %q", b.String())
	}
}

func TestJSONProgress(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	a := &app{Streams: clikit.Streams{Err: &b, Getenv: func(string) string { return "" }}}
	a.LogFormat = "json"
	watch, _ := a.progress()
	watch.begin(1)
	watch.done(failed("a"))
	watch.end()
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	var last struct{ Device, Outcome, Error string }
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
		t.Fatal(err)
	}
	if last.Device != "a" || last.Outcome != "failed" || last.Error == "" {
		t.Errorf("%+v", last)
	}
}

// On a terminal, lines appear above the bar: none is written into it.
func TestBarKeepsLinesApart(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	watch := &barWatcher{out: &b}
	log := slog.New(slog.NewTextHandler(watch, nil))
	w := &fakeWorker{result: func(_ context.Context, device string) enrol.Result {
		log.Info("working", "device", device)
		if device == "plc-0001" {
			return failed(device)
		}
		return renewed(device)
	}}
	run := &batch{worker: w, bounds: renewal.Bounds{Devices: 4}, timeout: defaultTimeout, watch: watch, now: time.Now}
	if r := run.run(context.Background(), &plan{due: jobs(names(20)...)}); r.Renewed != 19 {
		t.Error(r.summary())
	}
	seen := 0
	for line := range strings.SplitSeq(b.String(), "\n") {
		at := line[strings.LastIndex(line, "\r")+1:]
		switch {
		case strings.Contains(at, "msg=working"), strings.HasPrefix(at, "plc-0001 failed"):
			seen++
			if strings.Contains(at, "devices") {
				t.Errorf("the bar is in the line %q", at)
			}
		}
	}
	if seen != 21 {
		t.Errorf("%d lines of 21 in %q", seen, b.String())
	}
	watch.begin(0)
	watch.end()
}
