package sqlite

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/enrol"
)

// crashEnv makes the test binary the process that is killed, on the directory
// that it names.
const crashEnv = "EDGECLM_STORE_CRASH_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashEnv); dir != "" {
		if err := writeUntilKilled(dir); err != nil {
			fmt.Println("error", err)
		}
		os.Exit(1)
	}
	if runAsProcess() {
		return
	}
	os.Exit(m.Run())
}

const crashDevices = 12

func crashName(i int) string { return fmt.Sprintf("plc-%02d", i) }

// writeUntilKilled commits on as many goroutines as there are devices, and
// tells of each commit once it is acknowledged.
func writeUntilKilled(dir string) error {
	ctx := context.Background()
	s, err := Open(ctx, filepath.Join(dir, "inventory.db"), Options{})
	if err != nil {
		return err
	}
	failed := make(chan error)
	for i := range crashDevices {
		name := crashName(i)
		if _, err := s.Lease(ctx, name); err != nil {
			return err
		}
		e, err := s.OpenEnrolment(ctx, name)
		if err != nil {
			return err
		}
		go func() {
			for {
				e.Tries++
				event := enrol.Event{Device: name, Enrolment: e.ID, Message: strconv.FormatInt(e.Revision+1, 10)}
				d, err := s.Device(ctx, name)
				if err == nil {
					d.Attempts = int(e.Revision + 1)
					err = s.Commit(ctx, enrol.Change{Enrolment: e, Device: &d, Events: []enrol.Event{event}})
				}
				if err != nil {
					failed <- err
					return
				}
				fmt.Printf("%s %d\n", name, e.Revision)
			}
		}()
	}
	return <-failed
}

// TestKill kills a process in the middle of its commits, again and again: what
// it acknowledged is there, whole, and its leases are free.
func TestKill(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	path := filepath.Join(dir, "inventory.db")
	s := openTest(t, path)
	names := make([]string, crashDevices)
	for i := range names {
		names[i] = crashName(i)
	}
	putTest(t, s, names...)
	for i, name := range names {
		commitTest(t, s, enrolment(name, byte(i+1)))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	acknowledged := map[string]int64{}
	for _, name := range names {
		acknowledged[name] = 1
	}
	for round := range 6 {
		for name, revision := range killAfter(t, dir, 1+round*40) {
			acknowledged[name] = revision
		}
		s := openTest(t, path)
		checkIntegrity(t, s)
		for _, name := range names {
			acknowledged[name] = checkSurvivor(ctx, t, s, name, acknowledged[name])
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// killAfter kills the writer after so many acknowledgements, and returns the
// last one for each device.
func killAfter(t *testing.T, dir string, n int) map[string]int64 {
	t.Helper()
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), crashEnv+"="+dir)
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int64{}
	lines := bufio.NewScanner(output)
	for count := 1; lines.Scan(); count++ {
		name, number, _ := strings.Cut(lines.Text(), " ")
		revision, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			t.Fatalf("the writer says: %s", lines.Text())
		}
		seen[name] = revision
		if count == n {
			if err := command.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	// It was killed: an error is what has to come.
	if err := command.Wait(); err == nil || len(seen) == 0 {
		t.Fatalf("the writer ended by itself: %v", err)
	}
	return seen
}

// checkSurvivor holds that a device has all that was acknowledged, and nothing
// in halves. It returns the revision that is there.
func checkSurvivor(ctx context.Context, t *testing.T, s *Store, name string, acknowledged int64) int64 {
	t.Helper()
	e, err := s.OpenEnrolment(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	// The last commit may have been durable before its acknowledgement.
	if e.Revision != acknowledged && e.Revision != acknowledged+1 {
		t.Errorf("%s has revision %d, acknowledged was %d", name, e.Revision, acknowledged)
	}
	h, err := s.History(ctx, name, 1)
	if err != nil {
		t.Fatal(err)
	}
	if e.Revision > 1 && (h.Events[0].Message != fmt.Sprint(e.Revision) || int64(h.Device.Attempts) != e.Revision) {
		t.Errorf("%s has revision %d, its event says %s, its row %d", name, e.Revision, h.Events[0].Message, h.Device.Attempts)
	}
	release, err := s.Lease(ctx, name)
	if err != nil {
		t.Fatalf("the lease of a dead process: %v", err)
	}
	release()
	return e.Revision
}

// TestTornLog cuts the log where a power failure could: the store then has
// exactly the commits that were in the log as a whole.
func TestTornLog(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	path := filepath.Join(dir, "inventory.db")
	s := openTest(t, path)
	putTest(t, s, "plc-1")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	database, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s = openTest(t, path)
	var ends []int64 // of the log, after each commit
	e := enrolment("plc-1", 1)
	for range 4 {
		commitTest(t, s, e)
		info, err := os.Stat(path + "-wal")
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, info.Size())
	}
	log, err := os.ReadFile(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	for cut := int64(0); cut <= int64(len(log)); cut += 1031 {
		whole := int64(0)
		for _, end := range ends {
			if end <= cut {
				whole++
			}
		}
		zeros := make([]byte, int64(len(log))-cut)
		for name, tail := range map[string][]byte{"cut": nil, "zeros": zeros} {
			if got := revisionOf(ctx, t, database, append(log[:cut:cut], tail...)); got != whole {
				t.Errorf("%s at %d of %d: revision %d, want %d", name, cut, len(log), got, whole)
			}
		}
	}
}

// revisionOf opens a database with a log, and returns the revision of plc-1's
// enrolment, 0 for none.
func revisionOf(ctx context.Context, t *testing.T, database, log []byte) int64 {
	t.Helper()
	dir, err := os.MkdirTemp(shm(t), "edgeclm-torn-")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	}()
	path := filepath.Join(dir, "inventory.db")
	if err := errors.Join(os.WriteFile(path, database, 0o600), os.WriteFile(path+"-wal", log, 0o600)); err != nil {
		t.Fatal(err)
	}
	s, err := Open(ctx, path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	checkIntegrity(t, s)
	var revision int64
	switch e, err := s.OpenEnrolment(ctx, "plc-1"); {
	case err == nil:
		revision = e.Revision
	case !errors.Is(err, enrol.ErrNotFound):
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	return revision
}

// shm returns a directory in memory, or any.
func shm(t *testing.T) string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return t.TempDir()
}
