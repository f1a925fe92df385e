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
		want  string
	}{
		{0, 1, "\r[..............................] 1 of 1000 bundles\x1b[K"},
		{time.Millisecond, 2, ""}, // too soon
		{time.Second, 501, "\r[###############...............] 501 of 1000 bundles, 500/s, 1s left\x1b[K"},
		{time.Millisecond, 1000, "\r[##############################] 1000 of 1000 bundles, 997/s, 0s left\x1b[K\n"},
	} {
		out.Reset()
		now = now.Add(step.after)
		b.show(step.done, 1000)
		if out.String() != step.want {
			t.Errorf("%d: %q, want %q", step.done, out.String(), step.want)
		}
	}
}
