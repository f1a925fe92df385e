package airgap_test

import (
	"errors"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Attack: calls by the numbers of x32, which a filter that only compares the
// numbers of amd64 lets pass.
func TestAttackX32Call(t *testing.T) {
	_, err := act(t, "x32", nil)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGSYS {
		t.Errorf("error %v, want the process killed by SIGSYS", err)
	}
}
