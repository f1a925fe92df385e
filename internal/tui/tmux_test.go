package tui

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/testpeer"
)

// inTmux is the environment variable that makes this test binary the dashboard
// of TestTmux.
const inTmux = "EDGECLM_TUI_IN_TMUX"

func TestMain(m *testing.M) {
	if os.Getenv(inTmux) == "" {
		os.Exit(m.Run())
	}
	o := options(newPlant(5000))
	o.In, o.Out = os.Stdin, os.Stdout
	if err := New(o).Run(context.Background()); err != nil {
		println(err.Error())
		os.Exit(1)
	}
	println("left in order")
}

// TestTmux runs the dashboard in a real terminal: it draws, follows a resize,
// takes keys, and leaves the terminal as it was.
func TestTmux(t *testing.T) {
	t.Parallel()
	tmux := testpeer.Look(t, "tmux")
	socket := filepath.Join(t.TempDir(), "s")
	command := func(args ...string) string {
		out, err := exec.Command(tmux, append([]string{"-S", socket, "-f", "/dev/null"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("tmux %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	command("new-session", "-d", "-s", "w", "-x", "80", "-y", "24", inTmux+"=1 '"+os.Args[0]+"'; exec cat")
	t.Cleanup(func() { _ = exec.Command(tmux, "-S", socket, "kill-server").Run() })
	screen := ""
	until := func(want string) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
			if screen = command("capture-pane", "-p", "-t", "w"); strings.Contains(screen, want) {
				return
			}
		}
		t.Fatalf("no %q on the screen:\n%s", want, screen)
	}
	until("5,000 devices")
	if strings.Contains(screen, "Certification authorities") {
		t.Errorf("the large header on a small screen:\n%s", screen)
	}
	command("resize-window", "-t", "w", "-x", "160", "-y", "50")
	until("Certification authorities")
	command("send-keys", "-t", "w", "-l", "/state:exp")
	until("50 of 5,000 devices")
	command("send-keys", "-t", "w", "Enter")
	command("send-keys", "-t", "w", "p")
	until("Pause 1 device?")
	command("send-keys", "-t", "w", "n")
	command("send-keys", "-t", "w", "q")
	until("left in order")
	if strings.Contains(screen, "devices") {
		t.Errorf("the screen was not given back:\n%s", screen)
	}
}
