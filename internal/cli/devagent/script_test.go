package devagent_test

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/edgeclm/edgeclm/internal/cli/clitest"
	"github.com/edgeclm/edgeclm/internal/testpeer"
)

func TestMain(m *testing.M) {
	testscript.Main(m, clitest.Programs(os.Exit))
}

func TestScripts(t *testing.T) { runScripts(t, "testdata", nil) }

// Those that need a TPM, and that of another machine.
func TestTPMScripts(t *testing.T) {
	runScripts(t, "testdata/tpm", map[string]string{
		"TPM": testpeer.StartSWTPM(t).Socket(), "OTHER": testpeer.StartSWTPM(t).Socket(),
	})
}

func runScripts(t *testing.T, dir string, env map[string]string) {
	t.Helper()
	var s servers
	testscript.Run(t, testscript.Params{
		Dir: dir,
		Setup: func(e *testscript.Env) error {
			for name, value := range env {
				e.Setenv(name, value)
			}
			e.Setenv("XDG_STATE_HOME", e.WorkDir+"/state")
			e.Defer(func() { s.kill(e.WorkDir) })
			return nil
		},
		Condition: func(name string) (bool, error) {
			if name != "root" {
				return false, fmt.Errorf("unknown condition %s", name)
			}
			return os.Geteuid() == 0, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"flip": flip, "serve": s.serve, "stop": s.stop, "hangup": s.hangUp, "mode": mode, "pinof": pinOf,
		},
	})
}

// flip FILE OFFSET changes one bit; negative offsets count from the end.
func flip(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	data, err := os.ReadFile(path)
	ts.Check(err)
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	if at < 0 {
		at += len(data)
	}
	data[at] ^= 1
	ts.Check(os.WriteFile(path, data, 0o600))
}

// mode FILE WANT compares the permissions of a file.
func mode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[1] {
		ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
	}
}

// servers are the agents that scripts run in the background.
type servers struct {
	mu      sync.Mutex
	running map[string]*exec.Cmd // by their log
}

var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:[1-9][0-9]*)`)

// serve LOG ARGS... starts devagent, with its standard error in LOG, and sets
// ADDRESS once it listens.
func (s *servers) serve(ts *testscript.TestScript, _ bool, args []string) {
	log := ts.MkAbs(args[0])
	out, err := os.Create(log)
	ts.Check(err)
	program, err := exec.LookPath("devagent")
	ts.Check(err)
	cmd := exec.Command(program, args[1:]...)
	cmd.Dir, cmd.Stderr = ts.MkAbs("."), out
	cmd.Env = append(os.Environ(), "HOME="+ts.Getenv("HOME"), "XDG_STATE_HOME="+ts.Getenv("XDG_STATE_HOME"))
	ts.Check(cmd.Start())
	ts.Check(out.Close())
	s.mu.Lock()
	if s.running == nil {
		s.running = map[string]*exec.Cmd{}
	}
	s.running[log] = cmd
	s.mu.Unlock()
	for range 1000 {
		text, err := os.ReadFile(log)
		ts.Check(err)
		if m := listening.FindSubmatch(text); m != nil {
			ts.Setenv("ADDRESS", string(m[1]))
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	text, _ := os.ReadFile(log)
	ts.Fatalf("devagent %s does not listen: %s", strings.Join(args[1:], " "), text)
}

// stop LOG ends an agent with SIGTERM; it has to exit with 0.
func (s *servers) stop(ts *testscript.TestScript, _ bool, args []string) {
	log := ts.MkAbs(args[0])
	s.mu.Lock()
	cmd := s.running[log]
	delete(s.running, log)
	s.mu.Unlock()
	ts.Check(cmd.Process.Signal(syscall.SIGTERM))
	if err := cmd.Wait(); err != nil {
		text, _ := os.ReadFile(log)
		ts.Fatalf("devagent after SIGTERM: %v: %s", err, text)
	}
}

// hangUp LOG TEXT sends an agent SIGHUP and waits for a text in its log.
func (s *servers) hangUp(ts *testscript.TestScript, _ bool, args []string) {
	log := ts.MkAbs(args[0])
	s.mu.Lock()
	cmd := s.running[log]
	s.mu.Unlock()
	ts.Check(cmd.Process.Signal(syscall.SIGHUP))
	for range 3000 {
		text, err := os.ReadFile(log)
		ts.Check(err)
		if strings.Contains(string(text), args[1]) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	text, _ := os.ReadFile(log)
	ts.Fatalf("no %q in the log: %s", args[1], text)
}

// kill ends what a script that failed left behind in its directory.
func (s *servers) kill(dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for log, cmd := range s.running {
		if strings.HasPrefix(log, dir+"/") {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			delete(s.running, log)
		}
	}
}

// pinOf SHEET NAME FILE copies a device's PIN from a sheet.
func pinOf(ts *testscript.TestScript, _ bool, args []string) {
	_, text, found := strings.Cut(ts.ReadFile(args[0]), "\n"+args[1]+"\n")
	_, text, foundPIN := strings.Cut(text, "\nPIN       ")
	if !found || !foundPIN {
		ts.Fatalf("%s has no PIN of %s", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), []byte(text[:23]+"\n"), 0o600))
}
