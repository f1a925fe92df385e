package labpeer_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/labpeer"
)

// parentVariable makes this test's binary the parent of
// TestProcessEndsWithItsParent.
const parentVariable = "EDGECLM_TEST_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(parentVariable) != "" {
		beParent()
	}
	os.Exit(m.Run())
}

// beParent starts a program, prints its process ID, and waits to be killed.
func beParent() {
	p, err := labpeer.StartProcess(context.Background(), "sleep", []string{"600"}, nil, io.Discard)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(p.PID())
	<-p.Done()
}

// A demo or test that is killed leaves nothing running.
func TestProcessEndsWithItsParent(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.CommandContext(t.Context(), self)
	parent.Env = append(os.Environ(), parentVariable+"=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatalf("the parent said %q", line)
	}
	if !running(pid) {
		t.Fatal("the child did not run")
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // "signal: killed"
	for range 200 {
		if !running(pid) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("process %d outlives its parent", pid)
}

// running reports whether a process exists and is no zombie, which is what is
// left of it where nobody reaps orphans.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestProcessErr(t *testing.T) {
	for code, script := range map[int]string{0: "exit 0", 7: "exit 7"} {
		p, err := labpeer.StartProcess(t.Context(), "/bin/sh", []string{"-c", script}, nil, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		if exit := (*exec.ExitError)(nil); errors.As(p.Err(), &exit) {
			got = exit.ExitCode()
		}
		if got != code {
			t.Errorf("%s: exit code %d", script, got)
		}
		p.Stop() // harmless after the end
	}
}

func TestProcessStop(t *testing.T) {
	p, err := labpeer.StartProcess(t.Context(), "sleep", []string{"600"}, nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	p.Stop()
	exit := (*exec.ExitError)(nil)
	if !errors.As(p.Err(), &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("ended with %v", p.Err())
	}
}

func TestProcessEnvironment(t *testing.T) {
	t.Setenv("EDGECLM_TEST_INHERITED", "old")
	var out strings.Builder
	p, err := labpeer.StartProcess(t.Context(), "/bin/sh", []string{"-c", "echo $EDGECLM_TEST_INHERITED $EDGECLM_TEST_ADDED"},
		[]string{"EDGECLM_TEST_ADDED=new"}, &out)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Err(); err != nil || out.String() != "old new\n" {
		t.Errorf("said %q, ended with %v", out.String(), err)
	}
}

func TestListeners(t *testing.T) {
	first, second := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	closed := listen(t, "127.0.0.1:0")
	everywhere := listen(t, "0.0.0.0:0")
	closed.Close()
	found, err := labpeer.Listeners(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for listener, want := range map[net.Listener]bool{first: true, second: true, closed: false, everywhere: false} {
		address := listener.Addr().(*net.TCPAddr).AddrPort()
		if slices.Contains(found, address) != want {
			t.Errorf("%v among %v is %v", address, found, !want)
		}
	}
}

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener
}

func TestFind(t *testing.T) {
	peers, path := t.TempDir(), t.TempDir()
	t.Setenv(labpeer.DirVariable, peers)
	t.Setenv("PATH", path)
	find := func(want string) {
		t.Helper()
		got, err := labpeer.Find(labpeer.StepCA)
		if got != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, labpeer.ErrNotInstalled) {
			t.Errorf("found %q, %v; want %q", got, err, want)
		}
	}
	find("")
	onPath := filepath.Join(path, labpeer.StepCA)
	program(t, onPath, 0o700)
	find(onPath)
	built, err := labpeer.Path(labpeer.StepCA, labpeer.StepCAVersion)
	if err != nil {
		t.Fatal(err)
	}
	program(t, built, 0o600)
	find(onPath) // a half-made one does not count
	if err := os.Chmod(built, 0o700); err != nil {
		t.Fatal(err)
	}
	find(built)
}

func program(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), mode); err != nil {
		t.Fatal(err)
	}
}

func TestDir(t *testing.T) {
	t.Setenv(labpeer.DirVariable, "")
	t.Setenv("XDG_CACHE_HOME", "/cache")
	if dir, err := labpeer.Dir(); err != nil || dir != "/cache/edgeclm/peers" {
		t.Errorf("in the user's cache: %q, %v", dir, err)
	}
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("HOME", "")
	if dir, err := labpeer.Dir(); err != nil || !filepath.IsAbs(dir) {
		t.Errorf("without HOME: %q, %v", dir, err)
	}
	t.Setenv(labpeer.DirVariable, "/mine")
	if dir, err := labpeer.Dir(); err != nil || dir != "/mine" {
		t.Errorf("as the environment says: %q, %v", dir, err)
	}
}

// The version that is looked for is the one that the second module builds.
func TestStepCAVersion(t *testing.T) {
	text, err := os.ReadFile("../../test/peers/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if want := "github.com/smallstep/certificates " + labpeer.StepCAVersion + " "; !strings.Contains(string(text), want) {
		t.Errorf("test/peers/go.mod does not require %q", want)
	}
}

func TestStartStepCARefuses(t *testing.T) {
	crash := filepath.Join(t.TempDir(), "crash")
	program(t, crash, 0o700)
	if err := os.WriteFile(crash, []byte("#!/bin/sh\necho first\necho no such key\nexit 2\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		binary  string
		options labpeer.StepCAOptions
		says    string
	}{
		"no such program":   {"/nonexistent", labpeer.StepCAOptions{}, "/nonexistent"},
		"program that ends": {crash, labpeer.StepCAOptions{}, "ended at its start: no such key"},
		"lifetime":          {crash, labpeer.StepCAOptions{Lifetime: -time.Second}, "out of range"},
		"backdate":          {crash, labpeer.StepCAOptions{Backdate: -time.Second}, "out of range"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := labpeer.StartStepCA(t.Context(), t.TempDir(), test.binary, test.options)
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want an error with %q", err, test.says)
			}
		})
	}
}
