package labpeer

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

// Process is a running program that ends at the latest with its parent.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// StartProcess runs a program until it ends by itself, ctx is done, Stop is
// called, or this process dies, however it dies. The program gets this
// process's environment with env (each entry KEY=value) added, and no standard
// input; both its outputs go to log.
func StartProcess(ctx context.Context, path string, args, env []string, log io.Writer) (*Process, error) {
	return StartProcessIn(ctx, "", path, args, env, log)
}

// StartProcessIn is StartProcess in another working directory; "" is this
// process's.
func StartProcessIn(ctx context.Context, dir, path string, args, env []string, log io.Writer) (*Process, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The kernel sends the signal when the thread that forked ends, not the
		// process; so this thread is kept for as long as the child lives.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	return p, nil
}

// PID returns the process ID.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the program has ended; Err then says how.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns the error of a program that has ended: nil for exit code 0, an
// *exec.ExitError for others. It waits for the end.
func (p *Process) Err() error {
	<-p.done
	return p.err
}

// Stop kills the program and waits for its end. It may be called again, and
// after the program has ended by itself.
func (p *Process) Stop() {
	// An error here says that the process has ended already.
	_ = p.cmd.Process.Kill()
	<-p.done
}
