package consumer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"syscall"
	"time"
)

// Bounds of a hook.
const (
	DefaultHookTimeout = 30 * time.Second
	maxHookOutput      = 1 << 10
	hookGrace          = 2 * time.Second // for its output, once it has ended
)

// Hook is a command that makes a service use what was published for it.
type Hook struct {
	Argv    []string      // the program and its arguments; no shell is involved
	Env     []string      // "key=value"; EDGECLM_* is added
	Timeout time.Duration // 0: DefaultHookTimeout
	Log     *slog.Logger  // gets what the command prints
}

// Run runs the command, which finds the paths in EDGECLM_DIR,
// EDGECLM_KEY_FILE, EDGECLM_CERT_FILE, EDGECLM_CHAIN_FILE and EDGECLM_CA_FILE,
// and "yes" in EDGECLM_RESTORED if the previous pair is back. What it prints
// stays in the device's log; the error says no more than how it ended.
func (h Hook) Run(ctx context.Context, at Paths) error {
	timeout := h.Timeout
	if timeout <= 0 {
		timeout = DefaultHookTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.Argv[0], h.Argv[1:]...)
	cmd.Env = append(append([]string{}, h.Env...), at.environment()...)
	var output tail
	cmd.Stdout, cmd.Stderr = &output, &output
	// What the command has started ends with it when the time is up.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = hookGrace
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		// It succeeded and left a process behind that holds its output open.
		err = nil
	}
	h.Log.Info("reload hook", "command", h.Argv[0], "output", output.String(), "error", err)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("no end after %v", timeout)
	case errors.As(err, &exit):
		return err
	}
	return fmt.Errorf("cannot run %s", h.Argv[0])
}

// environment tells a hook the paths.
func (p Paths) environment() []string {
	restored := ""
	if p.Restored {
		restored = "yes"
	}
	return []string{
		"EDGECLM_DIR=" + p.Dir, "EDGECLM_KEY_FILE=" + p.Key, "EDGECLM_CERT_FILE=" + p.Certificate,
		"EDGECLM_CHAIN_FILE=" + p.Chain, "EDGECLM_CA_FILE=" + p.CA, "EDGECLM_RESTORED=" + restored,
	}
}

// tail keeps the last bytes that were written to it.
type tail struct{ buf bytes.Buffer }

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if over := t.buf.Len() + n - maxHookOutput; over > 0 {
		t.buf.Next(over)
	}
	t.buf.Write(p[max(0, n-maxHookOutput):])
	return n, nil
}

func (t *tail) String() string { return t.buf.String() }
