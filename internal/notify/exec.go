package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edgeclm/edgeclm/internal/alert"
)

// Bounds of a hook.
const (
	maxOutput = 1 << 10
	hookGrace = 2 * time.Second // for its output, once it has ended
)

// Exec is a program that gets the message on its standard input. No shell is
// involved. It has a clean environment, and nothing that it starts in its
// process group outlives it.
type Exec struct {
	Command []string
	Timeout time.Duration
	Path    string // its PATH; "": the system's usual one
}

// Name implements Channel.
func (Exec) Name() string { return "exec" }

// Send implements Channel; any exit code but 0 is an error to be tried again.
func (e Exec) Send(ctx context.Context, m Message) error {
	body, err := m.body()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, e.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, e.Command[0], e.Command[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdin = "/", e.environment(m), bytes.NewReader(body)
	var output tail
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = hookGrace
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run the hook: %w", err)
	}
	// Until it is waited for, its process group cannot be anybody else's.
	for {
		err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	err = cmd.Wait()
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return nil
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		err = fmt.Errorf("no end after %v", e.Timeout)
	case ctx.Err() != nil:
		err = ctx.Err()
	}
	if said := alert.Clean(output.String(), 2*maxOutput); said != "" {
		return fmt.Errorf("run the hook: %w: %s", err, said)
	}
	return fmt.Errorf("run the hook: %w", err)
}

func (e Exec) environment(m Message) []string {
	path := e.Path
	if path == "" {
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	return []string{
		"PATH=" + path, "LANG=C.UTF-8",
		"EDGECLM_MESSAGE_ID=" + m.Data.ID, "EDGECLM_TYPE=" + m.Type, "EDGECLM_SEVERITY=" + m.Data.Severity.String(),
		"EDGECLM_SUBJECT=" + m.Data.Subject, "EDGECLM_NEW=" + strconv.Itoa(len(m.Data.New)),
		"EDGECLM_RECOVERED=" + strconv.Itoa(len(m.Data.Recovered)), "EDGECLM_OPEN=" + strconv.Itoa(m.Data.Open),
	}
}

// tail keeps the last bytes that were written to it.
type tail struct{ buf bytes.Buffer }

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if over := t.buf.Len() + n - maxOutput; over > 0 {
		t.buf.Next(over)
	}
	t.buf.Write(p[max(0, n-maxOutput):])
	return n, nil
}

// String returns what was kept.
func (t *tail) String() string { return t.buf.String() }
