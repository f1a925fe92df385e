package demo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/edgeclm/edgeclm/internal/labpeer"
)

// programs are the ones of the product.
func programs() []string { return []string{"pkg-offline", "clmctl", "devagent"} }

func (s *show) findPrograms() error {
	for _, name := range programs() {
		info, err := os.Stat(s.program(name))
		if err != nil || !info.Mode().IsRegular() {
			return fmt.Errorf("%w: %s is not beside this one, in %s", ErrProgram, name, s.Programs)
		}
	}
	if s.CA == StepCA {
		if _, err := labpeer.Find(labpeer.StepCA); err != nil {
			return err
		}
	}
	return nil
}

// program returns what to execute for a name as it is typed.
func (s *show) program(name string) string {
	for _, own := range programs() {
		if name == own {
			return filepath.Join(s.Programs, name)
		}
	}
	return name
}

// run executes a command line in the directory of the demo, shows it with its
// output, and returns its standard output. Words are separated by single
// blanks; there is no quoting, and "> file" at the end redirects.
func (s *show) run(ctx context.Context, line string) ([]byte, error) {
	out, err := s.runQuietly(ctx, line)
	if !strings.Contains(line, " > ") {
		s.say("%s", indent(out))
	}
	return out, err
}

// runQuietly is run without the output, unless it fails.
func (s *show) runQuietly(ctx context.Context, line string) ([]byte, error) {
	s.say("   $ %s\n", line)
	command, file, redirected := strings.Cut(line, " > ")
	out, err := s.capture(ctx, command)
	if err == nil && redirected {
		err = s.write(file, string(out))
	}
	return out, err
}

// capture executes a command line without showing it.
func (s *show) capture(ctx context.Context, line string) ([]byte, error) {
	words := strings.Split(line, " ")
	cmd := exec.CommandContext(ctx, s.program(words[0]), words[1:]...)
	cmd.Dir, cmd.Env = s.dir, environment()
	// A command that is interrupted ends calmly; one that does not is killed.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		s.say("%s%s", indent(out.Bytes()), indent(problems.Bytes()))
		return out.Bytes(), fmt.Errorf("%s: %w", words[0], err)
	}
	return out.Bytes(), nil
}

// environment is that of the children: the user's, without settings of the
// product that would lead them elsewhere.
func environment() []string {
	var out []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "CLM_") && !strings.HasPrefix(e, "DEVAGENT_") {
			out = append(out, e)
		}
	}
	return out
}

func indent(text []byte) string {
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		b.WriteString("     " + strings.TrimRight(line, "\n") + "\n")
	}
	return b.String()
}

// start runs a command line in the background until the demo ends, and returns
// the first part of its output that matches a pattern.
func (s *show) start(ctx context.Context, line, logName string, pattern *regexp.Regexp) (string, error) {
	s.say("   $ %s &\n", line)
	words := strings.Split(line, " ")
	log, err := os.OpenFile(s.path(logName), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	w := &waiter{log: log, pattern: pattern, found: make(chan string, 1)}
	p, err := labpeer.StartProcessIn(ctx, s.dir, s.program(words[0]), words[1:], nil, w)
	if err != nil {
		return "", err
	}
	s.stops = append(s.stops, p.Stop)
	select {
	case text := <-w.found:
		return text, nil
	case <-p.Done():
		return "", fmt.Errorf("%s ended at its start: %s", words[0], w.last())
	case <-ctx.Done():
		return "", ctx.Err()
	case <-time.After(30 * time.Second):
		return "", fmt.Errorf("%s does not come up: %s", words[0], w.last())
	}
}

// waiter keeps a log and looks out for a pattern in it.
type waiter struct {
	log     io.WriteCloser
	pattern *regexp.Regexp
	found   chan string

	mu   sync.Mutex
	head bytes.Buffer // what came so far, until the pattern was found
	done bool
}

// Write implements io.Writer.
func (w *waiter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.done {
		w.head.Write(p)
		if m := w.pattern.FindSubmatch(w.head.Bytes()); m != nil {
			w.done = true
			w.found <- string(m[1])
		}
	}
	return w.log.Write(p)
}

// last returns the last line that was written so far.
func (w *waiter) last() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(w.head.String()), "\n")
	return lines[len(lines)-1]
}
