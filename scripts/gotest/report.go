package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// event is one line of "go test -json" (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // of a build event
	Test       string
	Output     string
}

// report turns events into what a person wants to read.
type report struct {
	out    io.Writer
	output map[string][]line // by package: what its tests that have not passed have printed
	skips  map[string]int    // by reason: how many tests

	passed, failed, skipped int
}

// line is one piece of output of a test, or of the package ("").
type line struct{ test, text string }

func newReport(out io.Writer) *report {
	return &report{out: out, output: make(map[string][]line), skips: make(map[string]int)}
}

// read takes events to their end. A line that is no event is printed as it is.
func (r *report) read(events io.Reader) error {
	lines := bufio.NewReader(events)
	for {
		text, err := lines.ReadString('\n')
		if text != "" {
			var e event
			if json.Unmarshal([]byte(text), &e) == nil && e.Action != "" {
				r.take(e)
			} else {
				fmt.Fprint(r.out, text)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the events of go test: %w", err)
		}
	}
}

func (r *report) take(e event) {
	switch e.Action {
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "output":
		r.output[e.Package] = append(r.output[e.Package], line{e.Test, e.Output})
	case "pass", "skip", "fail":
		if e.Test == "" {
			r.packageEnds(e)
		} else {
			r.testEnds(e)
		}
	}
}

// testEnds counts a test, and drops the output of one that did not fail.
func (r *report) testEnds(e event) {
	switch e.Action {
	case "fail":
		r.failed++
		return
	case "skip":
		r.skipped++
		r.skips[r.reason(e)]++
	case "pass":
		r.passed++
	}
	r.output[e.Package] = slices.DeleteFunc(r.output[e.Package], func(l line) bool { return l.test == e.Test })
}

// reason finds what a skipped test said last, without its place in the source.
func (r *report) reason(e event) string {
	reason := "no reason given"
	for _, l := range r.output[e.Package] {
		text := strings.TrimSpace(l.text)
		if l.test != e.Test || text == "" || strings.HasPrefix(text, "=== ") || strings.HasPrefix(text, "--- ") {
			continue
		}
		if _, after, found := strings.Cut(text, ".go:"); found {
			if _, said, found := strings.Cut(after, ": "); found {
				text = said
			}
		}
		reason = text
	}
	return reason
}

// packageEnds prints the closing line of a package, and before it, if it
// failed, all that its failed and unfinished tests have printed.
func (r *report) packageEnds(e event) {
	for _, l := range r.output[e.Package] {
		closing := l.test == "" && (strings.HasPrefix(l.text, "ok  \t") || strings.HasPrefix(l.text, "?   \t"))
		if e.Action == "fail" || closing {
			fmt.Fprint(r.out, l.text)
		}
	}
	if e.Action == "fail" && !r.blames(e.Package) {
		r.failed++ // the package itself: it did not build, or died outside a test
	}
	delete(r.output, e.Package)
}

// blames reports whether a test of the package has failed.
func (r *report) blames(pkg string) bool {
	return slices.ContainsFunc(r.output[pkg], func(l line) bool {
		return l.test != "" && strings.HasPrefix(strings.TrimSpace(l.text), "--- FAIL")
	})
}

// summary prints what was skipped, and the counts.
func (r *report) summary() {
	reasons := make([]string, 0, len(r.skips))
	for reason, n := range r.skips {
		reasons = append(reasons, fmt.Sprintf("SKIPPED %d: %s", n, reason))
	}
	slices.Sort(reasons)
	for _, reason := range reasons {
		fmt.Fprintln(r.out, reason)
	}
	fmt.Fprintf(r.out, "%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
}
