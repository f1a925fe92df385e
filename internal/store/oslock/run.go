package oslock

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// maxRunFile bounds what is read of a run lock's file.
const maxRunFile = 256

// HeldError says who holds a run lock. It wraps keyfile.ErrLocked.
type HeldError struct {
	Path  string
	PID   int       // 0 if the file does not say
	Since time.Time // zero if the file does not say
}

// Error implements error.
func (e *HeldError) Error() string {
	if e.PID == 0 || e.Since.IsZero() {
		return fmt.Sprintf("another run holds the lock %s", e.Path)
	}
	return fmt.Sprintf("another run holds the lock %s: process %d, since %s", e.Path, e.PID, e.Since.UTC().Format(time.RFC3339))
}

// Unwrap makes it a keyfile.ErrLocked.
func (e *HeldError) Unwrap() error { return keyfile.ErrLocked }

// Age is how long the lock has been held at a time; 0 if that is not known.
func (e *HeldError) Age(now time.Time) time.Duration {
	if e.Since.IsZero() {
		return 0
	}
	return max(0, now.Sub(e.Since))
}

// RunLock takes the lock between renewing runs, and notes in its file which
// process took it and when. It does not wait: a lock that is held is a
// *HeldError. The kernel releases it when the process ends, however it ends.
//
// The note is a courtesy. Whoever looks in the instant between the lock and
// the note sees that of the run before, or none.
func RunLock(path string, now time.Time) (unlock func() error, err error) {
	release, err := keyfile.Lock(path)
	if errors.Is(err, keyfile.ErrLocked) {
		return nil, ReadNote(path)
	}
	if err != nil {
		return nil, err
	}
	note := formatNote(os.Getpid(), now)
	if err := os.WriteFile(path, []byte(note), keyfile.SecretPerm); err != nil {
		return nil, errors.Join(fmt.Errorf("note who holds the lock: %w", err), release())
	}
	return func() error {
		return errors.Join(os.Truncate(path, 0), release())
	}, nil
}

// ReadNote returns what the file says about the holder, however little. It does
// not say whether the lock is held.
func ReadNote(path string) *HeldError {
	held := &HeldError{Path: path}
	file, err := os.Open(path)
	if err != nil {
		return held
	}
	data, err := io.ReadAll(io.LimitReader(file, maxRunFile))
	if err := errors.Join(err, file.Close()); err != nil {
		return held
	}
	held.PID, held.Since = parseNote(string(data))
	return held
}

func formatNote(pid int, at time.Time) string {
	return fmt.Sprintf("%d %s\n", pid, at.UTC().Format(time.RFC3339))
}

// parseNote returns 0 and the zero time unless all of it is in order.
func parseNote(note string) (pid int, since time.Time) {
	number, at, _ := strings.Cut(strings.TrimSpace(note), " ")
	since, err := time.Parse(time.RFC3339, at)
	if err != nil {
		return 0, time.Time{}
	}
	n, err := strconv.ParseUint(number, 10, 31)
	if err != nil || n == 0 {
		return 0, time.Time{}
	}
	return int(n), since.UTC()
}
