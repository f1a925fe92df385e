package consumer_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/consumer"
)

// shell is a hook that runs a script; its log is returned too.
func shell(t *testing.T, script string) (consumer.Hook, *bytes.Buffer) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hook")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	return consumer.Hook{
		Argv: []string{path, "an argument; with $HOME"}, Env: []string{"PATH=" + os.Getenv("PATH")},
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	}, &log
}

func TestHookEnvironment(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	h, _ := shell(t, `printf '%s\n' "$1" "$EDGECLM_DIR" "$EDGECLM_KEY_FILE" "$EDGECLM_CERT_FILE" "$EDGECLM_CHAIN_FILE" "$EDGECLM_CA_FILE" "$SECRET" > `+out)
	t.Setenv("SECRET", "not for hooks")
	err := h.Run(t.Context(), consumer.Paths{Dir: "d", Key: "k", Certificate: "c", Chain: "ch", CA: "ca"})
	if err != nil {
		t.Fatal(err)
	}
	got := string(readFile(t, out))
	if want := "an argument; with $HOME\nd\nk\nc\nch\nca\n\n"; got != want {
		t.Errorf("the hook saw %q, want %q", got, want)
	}
}

// What a hook prints may hold a key: it goes to the device's log, bounded, and
// not into the error, which goes to the CLM.
func TestHookFailure(t *testing.T) {
	h, log := shell(t, "i=0; while [ $i -lt 3000 ]; do echo filler; i=$((i+1)); done; echo the-reason >&2; exit 3")
	err := h.Run(t.Context(), consumer.Paths{})
	if err == nil || err.Error() != "exit status 3" {
		t.Errorf("got %v, want the exit status alone", err)
	}
	if log.Len() > 8<<10 {
		t.Errorf("the log has %d bytes", log.Len())
	}
	if !strings.Contains(log.String(), "the-reason") {
		t.Errorf("the end of the output is not in the log: %s", log)
	}
	h.Argv = []string{"/nonexistent/hook"}
	if err := h.Run(t.Context(), consumer.Paths{}); err == nil || !strings.Contains(err.Error(), "cannot run /nonexistent/hook") {
		t.Errorf("got %v", err)
	}
}

// A hook that does not end is killed with everything that it has started.
func TestHookTimeout(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	h, _ := shell(t, "sleep 600 & echo $! > "+pids+"; wait")
	h.Timeout = 500 * time.Millisecond
	if err := h.Run(context.Background(), consumer.Paths{}); err == nil || !strings.Contains(err.Error(), "no end after") {
		t.Errorf("got %v", err)
	}
	var pid int
	if _, err := fmt.Sscan(string(readFile(t, pids)), &pid); err != nil {
		t.Fatal(err)
	}
	for range 500 {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || bytes.Contains(state, []byte(") Z ")) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the child of the hook is still alive")
}

// A hook may leave a service running that holds its output open.
func TestHookLeavesService(t *testing.T) {
	h, _ := shell(t, "sleep 5 & exit 0")
	if err := h.Run(t.Context(), consumer.Paths{}); err != nil {
		t.Error(err)
	}
}
