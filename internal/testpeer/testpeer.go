// Package testpeer gives tests the external programs that edgeclm is tried
// against. A missing program skips the test with a notice, or fails it where
// nothing may be skipped.
package testpeer

import (
	"errors"
	"os"
	"testing"

	"github.com/edgeclm/edgeclm/internal/labpeer"
)

// NoSkip is the environment variable that, set to 1, makes a test fail whose
// external program is missing; continuous integration sets it.
const NoSkip = "EDGECLM_NO_SKIP"

// Look returns the path of an external program. Without it the test is
// skipped, or fails under EDGECLM_NO_SKIP=1.
func Look(t testing.TB, name string) string {
	t.Helper()
	path, err := labpeer.Find(name)
	switch {
	case err == nil:
		return path
	case errors.Is(err, labpeer.ErrNotInstalled):
		Missing(t, name+" is not installed")
	default:
		t.Fatalf("%v", err)
	}
	return ""
}

// Missing ends a test that lacks something of its surroundings: skipped with
// the reason, or failed under EDGECLM_NO_SKIP=1.
func Missing(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv(NoSkip) == "1" {
		t.Fatalf("%s, and %s=1 forbids to skip", reason, NoSkip)
	}
	t.Skip(reason)
}
