package pkgoffline

import (
	"strings"
	"testing"
	"time"
)

// The bar tells what is done, the rate since it began, and the rest at that rate.
func TestBar(t *testing.T) {
	var out strings.Builder
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	b := &bar{out: &out, now: func() time.Time { return now }}
	for _, step := range []struct {
		after time.Duration
		done  int
		made  int
		want  string
	}{
		{0, 1, 1, "\r[..............................] 1 of 1000 bundles\x1b[K"},
		{time.Millisecond, 2, 2, ""}, // too soon
		{time.Second, 501, 501, "\r[###############...............] 501 of 1000 bundles, 500/s, 1s left\x1b[K"},
		{time.Millisecond, 1000, 1000, "\r[##############################] 1000 of 1000 bundles, 997/s, 0s left\x1b[K\n"},
	} {
		out.Reset()
		now = now.Add(step.after)
		b.show(step.done, 1000, step.made)
		if out.String() != step.want {
			t.Errorf("%d: %q, want %q", step.done, out.String(), step.want)
		}
	}
}

// After a resume, what is found on the medium in
// no time is no promise of how fast the rest is made.
func TestBarAfterResume(t *testing.T) {
	var out strings.Builder
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	b := &bar{out: &out, now: func() time.Time { return now }}
	b.show(600, 1000, 0)
	if strings.Contains(out.String(), "left") {
		t.Errorf("a rate of what was found: %q", out.String())
	}
	now = now.Add(time.Second)
	b.show(601, 1000, 1)
	now = now.Add(10 * time.Second)
	out.Reset()
	b.show(701, 1000, 101)
	if want := "701 of 1000 bundles, 10/s, 30s left"; !strings.Contains(out.String(), want) {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
