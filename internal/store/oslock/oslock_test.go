package oslock

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// holdEnv makes the test binary another process, which holds a lease and the
// run lock in the directory that it names.
const holdEnv = "EDGECLM_OSLOCK_HOLD_DIR"

var lockTime = time.Date(2031, time.May, 7, 9, 30, 15, 0, time.UTC)

func TestMain(m *testing.M) {
	if dir := os.Getenv(holdEnv); dir != "" {
		if err := hold(dir); err != nil {
			fmt.Println("error", err)
		}
		os.Exit(1)
	}
	if dir := os.Getenv(gateEnv); dir != "" {
		if err := passGate(dir); err != nil {
			fmt.Println("error", err)
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// hold never returns once it has what it wants.
func hold(dir string) error {
	leases, err := OpenLeases(filepath.Join(dir, "leases.lock"))
	if err != nil {
		return err
	}
	if _, err := leases.Take("plc-1"); err != nil {
		return err
	}
	if _, err := RunLock(filepath.Join(dir, "run.lock"), lockTime); err != nil {
		return err
	}
	fmt.Println("held")
	_, err = io.ReadAll(os.Stdin)
	return err
}

// startHolder starts the other process, and returns when it holds both; kill
// kills it.
func startHolder(t *testing.T, dir string) (pid int, kill func()) {
	t.Helper()
	command := exec.Command(os.Args[0])
	command.Env = append(os.Environ(), holdEnv+"="+dir)
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := command.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		if err := command.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
		// That it was killed is no news.
		_ = command.Wait()
	}
	t.Cleanup(kill)
	if line, err := bufio.NewReader(output).ReadString('\n'); err != nil || line != "held\n" {
		t.Fatalf("the holder says %q, %v", line, err)
	}
	return command.Process.Pid, kill
}

func openTest(t *testing.T, path string) *Leases {
	t.Helper()
	l, err := OpenLeases(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// TestDiesWithItsProcess: what another process holds is refused, and free as
// soon as it is dead.
func TestDiesWithItsProcess(t *testing.T) {
	dir := t.TempDir()
	run := filepath.Join(dir, "run.lock")
	l := openTest(t, filepath.Join(dir, "leases.lock"))
	pid, kill := startHolder(t, dir)

	if _, err := l.Take("plc-1"); !errors.Is(err, enrol.ErrLeased) || !strings.Contains(err.Error(), "plc-1") {
		t.Errorf("lease: %v", err)
	}
	other, err := l.Take("plc-2")
	if err != nil {
		t.Errorf("another device: %v", err)
	}
	other()
	_, err = RunLock(run, lockTime.Add(time.Hour))
	var held *HeldError
	if !errors.As(err, &held) || !errors.Is(err, keyfile.ErrLocked) {
		t.Fatalf("run lock: %v", err)
	}
	if held.PID != pid || !held.Since.Equal(lockTime) || held.Age(lockTime.Add(time.Hour)) != time.Hour {
		t.Errorf("held: %+v", held)
	}
	if text := err.Error(); !strings.Contains(text, fmt.Sprint(pid)) || !strings.Contains(text, "2031-05-07T09:30:15Z") {
		t.Errorf("message: %s", text)
	}

	kill()
	release, err := l.Take("plc-1")
	if err != nil {
		t.Fatalf("lease after the holder's death: %v", err)
	}
	release()
	unlock, err := RunLock(run, lockTime)
	if err != nil {
		t.Fatalf("run lock after the holder's death: %v", err)
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
}

func TestLeases(t *testing.T) {
	path := filepath.Join(t.TempDir(), "leases.lock")
	one, two := openTest(t, path), openTest(t, path)
	info, err := os.Stat(path)
	if err != nil || info.Mode() != keyfile.SecretPerm {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	release, err := one.Take("plc-1")
	if err != nil {
		t.Fatal(err)
	}
	for name, l := range map[string]*Leases{"the same": one, "another": two} {
		if _, err := l.Take("plc-1"); !errors.Is(err, enrol.ErrLeased) {
			t.Errorf("%s: %v", name, err)
		}
	}
	release()
	again, err := two.Take("plc-1")
	if err != nil {
		t.Fatal(err)
	}
	release()
	if _, err := one.Take("plc-1"); !errors.Is(err, enrol.ErrLeased) {
		t.Errorf("a second release ended another lease: %v", err)
	}
	same, err := one.Take("plc-3")
	if err != nil {
		t.Fatal(err)
	}
	same()
	if _, err := one.Take("plc-3"); err != nil {
		t.Fatal(err)
	}
	same()
	if _, err := one.Take("plc-3"); !errors.Is(err, enrol.ErrLeased) {
		t.Errorf("a second release ended the same one's next lease: %v", err)
	}
	// Closing releases, and releasing afterwards does no harm.
	if err := two.Close(); err != nil {
		t.Fatal(err)
	}
	again()
	if _, err := two.Take("plc-1"); !errors.Is(err, ErrClosed) {
		t.Errorf("a lease of closed ones: %v", err)
	}
	if _, err := one.Take("plc-1"); err != nil {
		t.Errorf("after the other was closed: %v", err)
	}
}

// TestLeaseOffsets: names of a plant do not share leases, and no offset
// overflows.
func TestLeaseOffsets(t *testing.T) {
	seen := map[int64]string{}
	for i := range 100_000 {
		name := fmt.Sprintf("plc-%06d.bilbao", i)
		offset := leaseOffset(name)
		if offset < 0 || offset+1 < 0 {
			t.Fatalf("the offset of %s is %d", name, offset)
		}
		if other, ok := seen[offset]; ok {
			t.Errorf("%s and %s share a lease", name, other)
		}
		seen[offset] = name
	}
}

func TestRunLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.lock")
	for range 2 {
		unlock, err := RunLock(path, lockTime)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode() != keyfile.SecretPerm {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		_, err = RunLock(path, lockTime)
		var held *HeldError
		if !errors.As(err, &held) || held.PID != os.Getpid() || held.Age(lockTime.Add(-time.Hour)) != 0 {
			t.Errorf("held: %+v, %v", held, err)
		}
		if err := unlock(); err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(path); err != nil || len(data) != 0 {
			t.Errorf("it left %q, %v", data, err)
		}
	}
	if _, err := RunLock(filepath.Join(t.TempDir(), "none", "run.lock"), lockTime); err == nil || errors.Is(err, keyfile.ErrLocked) {
		t.Errorf("in no directory: %v", err)
	}
}

// TestRunLockNote: whatever stands in the file, the lock is reported as held.
func TestRunLockNote(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run.lock")
	unlock, err := RunLock(path, lockTime)
	if err != nil {
		t.Fatal(err)
	}
	for _, note := range []string{
		"", "\n", "x", "12", "12 yesterday", "-1 2031-05-07T09:30:15Z", "99999999999 2031-05-07T09:30:15Z", "2031-05-07T09:30:15Z 12",
		"1 2031-05-07T09:30:15Z" + strings.Repeat("x", 1<<20), "\x00\xff",
	} {
		if err := os.WriteFile(path, []byte(note), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := RunLock(path, lockTime)
		var held *HeldError
		if !errors.As(err, &held) || held.PID != 0 || !held.Since.IsZero() || held.Age(lockTime) != 0 {
			t.Errorf("%.40q: %+v, %v", note, held, err)
		}
	}
	if err := unlock(); err != nil {
		t.Error(err)
	}
}

func FuzzParseNote(f *testing.F) {
	f.Add(formatNote(12, lockTime))
	f.Add("-1 2031-05-07T09:30:15Z")
	f.Add("1 2031-05-07T09:30:15.5+01:00")
	f.Add("2147483647 ")
	f.Add("1 9999-12-31T23:59:59-01:00")
	f.Fuzz(func(t *testing.T, note string) {
		pid, since := parseNote(note)
		if pid < 0 || pid == 0 && !since.IsZero() {
			t.Errorf("%q is half a note: %d, %v", note, pid, since)
		}
		// A zone may lead out of the four digits that a year has.
		if year := since.Year(); pid == 0 || year < 0 || year > 9999 {
			return
		}
		if again, at := parseNote(formatNote(pid, since)); again != pid || !at.Equal(since.Truncate(time.Second)) {
			t.Errorf("%q: %d, %v becomes %d, %v", note, pid, since, again, at)
		}
	})
}
