package testpeer

import (
	"context"
	"os"
	"testing"

	"github.com/edgeclm/edgeclm/internal/labpeer"
)

// StepCA starts a real step-ca on loopback for the time of the test. Without
// the program the test is skipped, see Look. The CA's log is shown if the test
// fails.
func StepCA(t testing.TB, options labpeer.StepCAOptions) *labpeer.StepCARunning {
	t.Helper()
	binary := Look(t, labpeer.StepCA)
	// The context of a test ends before its clean-up functions, which may still
	// want the CA.
	ctx := context.WithoutCancel(t.Context())
	ca, err := labpeer.StartStepCA(ctx, t.TempDir(), binary, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ca.Stop()
		if !t.Failed() {
			return
		}
		if log, err := os.ReadFile(ca.LogFile); err == nil {
			t.Logf("log of step-ca:\n%s", log)
		}
	})
	return ca
}
