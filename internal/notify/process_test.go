package notify_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/alert"
	"github.com/edgeclm/edgeclm/internal/notify"
)

// envDeliver says to a process of TestDeliverProcess which spool it works on.
const envDeliver = "EDGECLM_TEST_DELIVER"

// waiting is how many messages wait in a spool of newSpool.
const waiting = 30

// newSpool makes a spool in which messages wait, and says when they are due.
func newSpool(t *testing.T) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "notify")
	now := &clock{start()}
	n := newNotifier(dir, &fake{err: errors.New("down")}, now)
	for i := range 2 * waiting {
		now.now = now.now.Add(20 * time.Minute)
		f := alert.Facts{}
		if i/2%2 == 0 {
			f = bad()
		}
		if err := n.Observe(t.Context(), now.now, f); err != nil {
			t.Fatal(err)
		}
	}
	if counts, err := n.Counts(); err != nil || counts.Waiting != waiting {
		t.Fatal(counts, err)
	}
	return dir
}

// log is a channel that adds a line to a file for each message.
type log struct{ path string }

func (log) Name() string { return "fake" }

func (l log) Send(_ context.Context, m notify.Message) error {
	out, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, m.Data.ID)
	return errors.Join(err, out.Close())
}

// TestDeliverProcess is a process that delivers what waits, in a spool that the
// environment names; without it, it is no test.
func TestDeliverProcess(t *testing.T) {
	dir := os.Getenv(envDeliver)
	if dir == "" {
		return
	}
	now := &clock{start().Add(30 * 24 * time.Hour)}
	n := newNotifier(dir, nil, now)
	n.Channels = []notify.Channel{log{dir + ".sent"}}
	for {
		if err := n.Deliver(t.Context()); err != nil {
			t.Fatal(err)
		}
		if counts, err := n.Counts(); err != nil || counts.Waiting == 0 {
			return
		}
	}
}

func deliverer(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestDeliverProcess$")
	cmd.Env = append(os.Environ(), envDeliver+"="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// sends counts how often each message was sent.
func sends(t *testing.T, dir string) (counts map[string]int, total int) {
	t.Helper()
	data, err := os.ReadFile(dir + ".sent")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	counts = map[string]int{}
	for line := range bytes.Lines(data) {
		counts[string(line)]++
		total++
	}
	return counts, total
}

// TestTwoProcessesOneSpool: each message is delivered once.
func TestTwoProcessesOneSpool(t *testing.T) {
	t.Parallel()
	dir := newSpool(t)
	for _, cmd := range []*exec.Cmd{deliverer(t, dir), deliverer(t, dir)} {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	if counts, total := sends(t, dir); len(counts) != waiting || total != waiting {
		t.Errorf("%d messages sent %d times", len(counts), total)
	}
}

// TestTwoNotifiersObserve: two of one process, as a loop and a command within
// it, tell once.
func TestTwoNotifiersObserve(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "notify")
	done := make(chan error)
	for range 2 {
		go func() {
			n := newNotifier(dir, nil, &clock{start()})
			n.Channels = []notify.Channel{log{dir + ".sent"}}
			var errs []error
			for range 20 {
				errs = append(errs, n.Observe(t.Context(), start(), bad()))
			}
			done <- errors.Join(errs...)
		}()
	}
	if err := errors.Join(<-done, <-done); err != nil {
		t.Error(err)
	}
	if counts, total := sends(t, dir); len(counts) != 1 || total != 1 {
		t.Errorf("%d messages sent %d times", len(counts), total)
	}
}

// TestKilledProcesses: with SIGKILL at any moment no message is lost, each kill
// repeats one send at most, and nothing is left lying about.
func TestKilledProcesses(t *testing.T) {
	t.Parallel()
	dir := newSpool(t)
	kills := 0
	for {
		_, before := sends(t, dir)
		cmd := deliverer(t, dir)
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		var err error
		for stop := before + 1 + rand.IntN(4); ; time.Sleep(time.Millisecond) {
			select {
			case err = <-ended:
			default:
				if _, total := sends(t, dir); total < stop {
					continue
				}
				if killErr := cmd.Process.Kill(); killErr == nil {
					kills++
				}
				err = <-ended
			}
			break
		}
		if err == nil {
			break
		}
	}
	counts, total := sends(t, dir)
	if kills == 0 || len(counts) != waiting || total > waiting+kills {
		t.Errorf("%d messages sent %d times with %d kills", len(counts), total, kills)
	}
	if left := leftovers(t, dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestLeftoversOfACrash: temporary files are swept, and nothing else is.
func TestLeftoversOfACrash(t *testing.T) {
	t.Parallel()
	n := newNotifier(filepath.Join(t.TempDir(), "notify"), &fake{}, &clock{start()})
	if err := n.Observe(t.Context(), start(), alert.Facts{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".alerts.json.tmp-0123456789abcdef", "queue/.00000000000000000001.json.tmp-0123456789abcdef", "dead/.x.tmp-fedcba9876543210", "queue/note"} {
		if err := os.WriteFile(filepath.Join(n.Dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := n.Observe(t.Context(), start(), alert.Facts{}); err != nil {
		t.Fatal(err)
	}
	if left := leftovers(t, n.Dir); len(left) != 1 || filepath.Base(left[0]) != "note" {
		t.Errorf("left: %v", left)
	}
}
