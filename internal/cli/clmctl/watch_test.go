package clmctl_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/labpeer"
	"github.com/edgeclm/edgeclm/internal/testpeer"
)

// shop is a data directory with one device that is served, and a lab CA.
type shop struct {
	t   *testing.T
	dir string
}

func (s *shop) env() []string {
	return append(os.Environ(), "CLM_DATA_DIR="+filepath.Join(s.dir, "clm"), "LANG=C.UTF-8", "TZ=UTC")
}

// run runs a command line in the folder; its words have no blanks.
func (s *shop) run(line string) string {
	s.t.Helper()
	args := strings.Fields(line)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Env = s.dir, s.env()
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// serve starts a program and returns what the pattern matches of its output.
func (s *shop) serve(pattern, line string) string {
	s.t.Helper()
	args := strings.Fields(line)
	path, err := exec.LookPath(args[0])
	if err != nil {
		s.t.Fatal(err)
	}
	var out output
	p, err := labpeer.StartProcessIn(context.Background(), s.dir, path, args[1:], s.env(), &out)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(p.Stop)
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if m := regexp.MustCompile(pattern).FindStringSubmatch(out.String()); m != nil {
			return m[1]
		}
	}
	s.t.Fatalf("%s: %s", line, &out)
	return ""
}

func (s *shop) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func newShop(t *testing.T) *shop {
	t.Helper()
	s := &shop{t: t, dir: t.TempDir()}
	s.write("pass", "hove boni soro xehe fohi vobu pofe kico\n")
	s.write("challenge", "swordfish\n")
	s.run("pkg-offline init --dir pkg --passphrase-file pass --lab")
	s.write("clm.age", s.run("clmctl recipient"))
	s.run("pkg-offline issue --dir pkg --passphrase-file pass --lab --out usb --role clm --recipient-file clm.age clm-1")
	s.run("clmctl init --bundle usb/clm-clm-1.e1.g1.bundle.age")
	s.write("dev.csv", "name,recipient\nplc-1,"+strings.TrimSpace(s.run("devagent --data-dir dev recipient"))+"\n")
	s.run("pkg-offline issue --dir pkg --passphrase-file pass --lab --out usb --clm clm-1 --from dev.csv")
	s.run("devagent --data-dir dev provision usb/dev-plc-1.e1.g1.bundle.age")
	address := s.serve(`listening on (127\.0\.0\.1:\d+)`, "devagent --data-dir dev serve --listen 127.0.0.1:0")
	url := s.serve(`(?m)^(http://\S+)$`, "clmctl lab-ca serve --dir ca --listen 127.0.0.1:0 --challenge-file challenge")
	s.run("clmctl ca add " + url + " --challenge-file challenge --yes")
	s.write("addresses.csv", "name,address\nplc-1,"+address+"\n")
	s.run("clmctl commission usb/manifest.json --addresses addresses.csv")
	return s
}

// terminal is a window of a tmux server of the test's own.
type terminal struct {
	t            *testing.T
	tmux, socket string
	screen       string
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	x := &terminal{t: t, tmux: testpeer.Look(t, "tmux"), socket: filepath.Join(t.TempDir(), "s")}
	t.Cleanup(func() { _ = exec.Command(x.tmux, "-S", x.socket, "kill-server").Run() })
	return x
}

func (x *terminal) command(args ...string) string {
	x.t.Helper()
	out, err := exec.Command(x.tmux, append([]string{"-S", x.socket, "-f", "/dev/null"}, args...)...).CombinedOutput()
	if err != nil {
		x.t.Fatalf("tmux %v: %v: %s", args, err, out)
	}
	return string(out)
}

// open runs a shell line in a window of 80 by 24.
func (x *terminal) open(name string, env []string, line string) {
	x.t.Helper()
	cmd := exec.Command(x.tmux, "-S", x.socket, "-f", "/dev/null", "new-session", "-d", "-s", name, "-x", "80", "-y", "24", line)
	cmd.Env = env
	if out, err := cmd.CombinedOutput(); err != nil {
		x.t.Fatalf("tmux: %v: %s", err, out)
	}
}

// until waits until the window shows something.
func (x *terminal) until(name, want string) {
	x.t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if x.screen = x.command("capture-pane", "-p", "-t", name); strings.Contains(x.screen, want) {
			return
		}
	}
	x.t.Fatalf("no %q on the screen:\n%s", want, x.screen)
}

// TestWatchInTmux is a day in the life of the dashboard: it renews, another one
// shows meanwhile and takes over, a wish is done, and each gives the terminal
// back.
func TestWatchInTmux(t *testing.T) {
	t.Parallel()
	x, s := newTerminal(t), newShop(t)
	s.run("clmctl enrol --all")
	watch := func(name, flags string) {
		x.open(name, s.env(), fmt.Sprintf("clmctl watch %s; echo ended with $?; exec cat", flags))
	}
	watch("first", "")
	x.until("first", "clm-1   renewing")
	x.until("first", "plc-1")
	x.until("first", "1 operational")
	watch("second", "")
	x.until("second", "viewing: process ")
	watch("third", "--view")
	x.until("third", "viewing")

	x.command("send-keys", "-t", "first", "r")
	x.until("first", "Renew 1 device now?")
	x.command("send-keys", "-t", "first", "y")
	for deadline := time.Now().Add(time.Minute); strings.Count(s.run("clmctl device history plc-1 -o json"), `"kind": "completed"`) < 2; {
		if time.Now().After(deadline) {
			t.Fatal("the wish was not done")
		}
		time.Sleep(50 * time.Millisecond)
	}

	x.command("send-keys", "-t", "first", "q")
	x.until("first", "ended with 0")
	x.until("second", "clm-1   renewing")
	x.command("send-keys", "-t", "third", "p")
	x.command("send-keys", "-t", "third", "q")
	x.until("third", "ended with 0")
	if strings.Contains(s.run("clmctl device show plc-1 -o json"), `"paused": true`) {
		t.Error("a viewer has paused a device")
	}
	x.command("send-keys", "-t", "second", "q")
	x.until("second", "ended with 0")
	if strings.Contains(x.screen, "operational") {
		t.Errorf("the screen was not given back:\n%s", x.screen)
	}
}

// TestWatchInPipe: without a terminal it writes a line for each event, and
// renews nothing.
func TestWatchInPipe(t *testing.T) {
	t.Parallel()
	s := newShop(t)
	s.run("clmctl enrol --all")
	s.serve(`(\S+Z  plc-1  completed  completed  certificate )`, "clmctl watch")
	s.serve(`(\{"id":\d+,"device":"plc-1",.*"kind":"completed")`, "clmctl watch -o json")
	s.run("clmctl renew") // nobody has the lock
}
