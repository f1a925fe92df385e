package notify_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/alert"
	"github.com/edgeclm/edgeclm/internal/notify"
)

// hook makes a shell script that runs in the folder that it is returned with.
func hook(t testing.TB, script string) (path, dir string) {
	t.Helper()
	path = write(t, "hook", "#!/bin/sh\ncd \"$(dirname \"$0\")\"\n"+script+"\n", 0o700)
	return path, filepath.Dir(path)
}

func run(t testing.TB, command ...string) notify.Exec {
	t.Helper()
	return channels(t, notify.Config{Exec: &notify.ExecConfig{Command: command, Timeout: time.Minute}})[0].(notify.Exec)
}

func read(t testing.TB, elem ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestExecInput: the hook gets the message as JSON.
func TestExecInput(t *testing.T) {
	t.Parallel()
	script, dir := hook(t, "cat > in")
	if err := run(t, script).Send(t.Context(), message("x")); err != nil {
		t.Fatal(err)
	}
	var got notify.Message
	if err := json.Unmarshal([]byte(read(t, dir, "in")), &got); err != nil || got.Data.ID != "msg_0123" || len(got.Data.New) != 1 {
		t.Errorf("%+v: %v", got, err)
	}
}

// TestExecEnvironment: what is documented, and nothing of ours.
func TestExecEnvironment(t *testing.T) {
	t.Setenv("CLM_SECRET", "hunter2")
	script, dir := hook(t, "/usr/bin/env -0 > env; pwd -P > pwd")
	m := message("x\nEDGECLM_TYPE=forged")
	m.Data.Open, m.Data.Recovered = 7, make([]notify.Recovered, 2)
	if err := run(t, script).Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.Trim(read(t, dir, "env"), "\x00"), "\x00")
	got = slices.DeleteFunc(got, func(v string) bool {
		return strings.HasPrefix(v, "PWD=") || strings.HasPrefix(v, "OLDPWD=") || strings.HasPrefix(v, "_=") || strings.HasPrefix(v, "SHLVL=")
	})
	slices.Sort(got)
	want := []string{
		"EDGECLM_MESSAGE_ID=msg_0123", "EDGECLM_NEW=1", "EDGECLM_OPEN=7", "EDGECLM_RECOVERED=2", "EDGECLM_SEVERITY=critical",
		"EDGECLM_SUBJECT=" + m.Data.Subject, "EDGECLM_TYPE=alerts.digest", "LANG=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
	if !strings.Contains(m.Data.Subject, "x EDGECLM_TYPE=forged") {
		t.Errorf("%q", m.Data.Subject)
	}
}

// TestExecArguments are passed as they are: no shell reads them.
func TestExecArguments(t *testing.T) {
	t.Parallel()
	args := []string{"$(touch /tmp/evil)", "a b", "", "*", "'\"\\", "-n"}
	script, dir := hook(t, "for x; do printf '%s\\0' \"$x\"; done > args")
	if err := run(t, append([]string{script}, args...)...).Send(t.Context(), message("x")); err != nil {
		t.Fatal(err)
	}
	if got := strings.Split(strings.TrimSuffix(read(t, dir, "args"), "\x00"), "\x00"); !slices.Equal(got, args) {
		t.Errorf("%q, want %q", got, args)
	}
}

// TestExecThatDoesNotRead: a hook may leave its input alone, however long.
func TestExecThatDoesNotRead(t *testing.T) {
	t.Parallel()
	m := message("x")
	m.Data.Text = strings.Repeat("x", 1<<20)
	script, _ := hook(t, "exec <&-; exit 0")
	if err := run(t, script).Send(t.Context(), m); err != nil {
		t.Error(err)
	}
}

// TestExecFails: with its code, and a bounded part of its words, on one line.
func TestExecFails(t *testing.T) {
	t.Parallel()
	script, _ := hook(t, `head -c 10000000 /dev/zero | tr '\0' x; printf '\n\033[31mno good\n' >&2; exit 3`)
	err := run(t, script).Send(t.Context(), message("x"))
	if err == nil || len(err.Error()) > 1200 || !strings.Contains(err.Error(), "exit status 3") || !strings.HasSuffix(err.Error(), "[31mno good") ||
		strings.ContainsAny(err.Error(), "\n\x1b") || errors.Is(err, notify.ErrFinal) {
		t.Errorf("%v", err)
	}
	for _, path := range []string{"/nonexistent/hook", "/dev/null"} {
		if err := run(t, path).Send(t.Context(), message("x")); err == nil || !strings.Contains(err.Error(), "run the hook") || errors.Is(err, notify.ErrFinal) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// dead waits for the end of a process whose ID a hook has written down.
func dead(t *testing.T, elem ...string) {
	t.Helper()
	stat := "/proc/" + strings.TrimSpace(read(t, elem...)) + "/stat"
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		state, err := os.ReadFile(stat)
		if err != nil || strings.Contains(string(state), ") Z ") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("it lives: %s", state)
		}
	}
}

// TestHookThatHangs is ended at its time, with what it started, though that
// holds its output open and does not listen to SIGTERM.
func TestHookThatHangs(t *testing.T) {
	t.Parallel()
	script, dir := hook(t, "trap '' TERM HUP INT\nsleep 1000 &\necho $! > pid\nmv pid child\necho waiting; sleep 1000")
	e := run(t, script)
	e.Timeout = time.Second
	err := e.Send(t.Context(), message("x"))
	if err == nil || !strings.Contains(err.Error(), "no end after 1s: waiting") {
		t.Errorf("%v", err)
	}
	dead(t, dir, "child")
}

// TestHookInterrupted: who wants to end does not wait for the hook's time.
func TestHookInterrupted(t *testing.T) {
	t.Parallel()
	script, dir := hook(t, "sleep 1000 &\necho $! > pid\nmv pid child; sleep 1000")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- run(t, script).Send(ctx, message("x")) }()
	for {
		if _, err := os.Stat(filepath.Join(dir, "child")); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	if err := <-done; err == nil || strings.Contains(err.Error(), "no end after") {
		t.Errorf("%v", err)
	}
	dead(t, dir, "child")
}

// TestHookThatForks leaves nothing behind, also where it says that all is well.
func TestHookThatForks(t *testing.T) {
	t.Parallel()
	script, dir := hook(t, "sleep 1000 &\necho $! > child")
	if err := run(t, script).Send(t.Context(), message("x")); err != nil {
		t.Fatal(err)
	}
	dead(t, dir, "child")
}

// TestExecTest: a test message says that it is one.
func TestExecTest(t *testing.T) {
	t.Parallel()
	script, dir := hook(t, `echo "$EDGECLM_TYPE $EDGECLM_SEVERITY $EDGECLM_NEW: $EDGECLM_SUBJECT" > out`)
	n := notify.Notifier{CLM: "clm-1", Channels: []notify.Channel{run(t, script)}, Now: start}
	results, err := n.Test(t.Context(), "")
	if err != nil || len(results) != 1 || results[0].Err != nil || results[0].Channel != "exec" {
		t.Fatal(results, err)
	}
	if got := read(t, dir, "out"); got != "alerts.test info 0: edgeclm: a test from clm-1\n" {
		t.Errorf("%q", got)
	}
	if _, err := n.Test(t.Context(), "smtp"); err == nil {
		t.Error("a channel that is not configured was tested")
	}
	if _, err := os.Stat(n.Dir); n.Dir != "" || err == nil {
		t.Error("a test leaves something behind")
	}
}

// TestMessageIsBounded whatever devices say, and how many there are.
func TestMessageIsBounded(t *testing.T) {
	t.Parallel()
	var f alert.Facts
	for range 300 {
		f.Certificates = append(f.Certificates, alert.Certificate{Role: "CA", Name: strings.Repeat("<\x00", 5000), NotAfter: start()})
	}
	alerts := alert.Evaluate(start(), f, alert.Thresholds{})
	m := notify.NewMessage("msg_0", strings.Repeat("c", 500), alert.Digest{At: start(), New: alerts, Worse: alerts, Ongoing: alerts})
	data, err := json.Marshal(m)
	if err != nil || len(data) > 1<<20 || len(m.Data.Subject) > 120 || m.Data.Omitted != 3*(len(alerts)-20) {
		t.Errorf("%d bytes, subject %d, %d omitted of %d: %v", len(data), len(m.Data.Subject), m.Data.Omitted, 3*len(alerts), err)
	}
}
