package testpeer

import (
	"errors"
	"io"
	"os/exec"
	"testing"
)

// Promtool runs a command of Prometheus' promtool, of Debian's prometheus, and
// returns what it wrote and whether it found nothing to complain about. Without
// the program the test is skipped, see Look.
func Promtool(t testing.TB, in io.Reader, args ...string) (out string, ok bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), Look(t, "promtool"), args...)
	cmd.Stdin = in
	data, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("promtool: %v", err)
	}
	return string(data), err == nil
}
