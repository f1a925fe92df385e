package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// buildAgent builds devagent as it is shipped; env chooses the architecture.
func buildAgent(t testing.TB, env ...string) (program string) {
	t.Helper()
	program = filepath.Join(t.TempDir(), "devagent")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "../../cmd/devagent")
	build.Env = append(append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux"), env...)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// process is a running devagent.
type process struct {
	cmd    *exec.Cmd
	addr   string
	ended  chan struct{} // its output is complete
	mu     sync.Mutex
	output strings.Builder
}

var listening = regexp.MustCompile(`listening on (\S+:\d+)`)

// startAgent runs devagent on a directory until stop or kill; argv is the
// program, behind its emulator if it has one.
func startAgent(dir, listen string, argv ...string) (*process, error) {
	argv = append(argv, "--data-dir", dir, "serve", "--listen", listen)
	p := &process{cmd: exec.Command(argv[0], argv[1:]...), ended: make(chan struct{})}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	found := make(chan string, 1)
	go func() {
		defer close(p.ended)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				found <- m[1]
			}
			p.mu.Lock()
			p.output.WriteString(lines.Text() + "\n")
			p.mu.Unlock()
		}
	}()
	select {
	case p.addr = <-found:
		return p, nil
	case <-p.ended:
	case <-time.After(time.Minute):
	}
	_ = p.signal(syscall.SIGKILL)
	return nil, fmt.Errorf("the agent does not listen:\n%s", p.log())
}

// signal sends a signal and waits for the end.
func (p *process) signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil {
		return err
	}
	<-p.ended
	return p.cmd.Wait()
}

func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

// status reads a number from /proc/PID/status, memory in bytes.
func (p *process) status(t testing.TB, key string) int {
	t.Helper()
	data := value[[]byte](t)(os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid)))
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, key+":"); ok {
			fields := strings.Fields(rest)
			n := value[int](t)(strconv.Atoi(fields[0]))
			if len(fields) > 1 && fields[1] == "kB" {
				n <<= 10
			}
			return n
		}
	}
	t.Fatalf("no %s in the status of a process", key)
	return 0
}

// wakeUps counts how often any thread has gone to sleep so far.
func (p *process) wakeUps(t testing.TB) (n int) {
	t.Helper()
	tasks := value[[]string](t)(filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.cmd.Process.Pid)))
	for _, path := range tasks {
		for line := range strings.Lines(string(value[[]byte](t)(os.ReadFile(path)))) {
			if rest, ok := strings.CutPrefix(line, "voluntary_ctxt_switches:"); ok {
				n += value[int](t)(strconv.Atoi(strings.TrimSpace(rest)))
			}
		}
	}
	return n
}
