// Package testpeer finds the programs of others that tests run against.
package testpeer

import (
	"os"
	"os/exec"
	"testing"
)

// NoSkip is the environment variable that makes a missing program a failure.
const NoSkip = "EDGECLM_NO_SKIP"

// Look returns the path of a program. If it is not installed, the test is
// skipped, or fails if NoSkip is set to 1.
func Look(t testing.TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	if os.Getenv(NoSkip) == "1" {
		t.Fatalf("%s is not installed", program)
	}
	t.Skipf("%s is not installed", program)
	return ""
}
