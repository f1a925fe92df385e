package oslock

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// DefaultGateWait is how long Gate.Enter waits by default.
const DefaultGateWait = 30 * time.Second

// gatePoll is how often a waiting process looks again for a place or a lock
// that another one holds.
const gatePoll = 20 * time.Millisecond

// Gate keeps all processes that use the same directory within what a CA takes:
// it implements enrol.Gate. No time of the length of the rate's unit has more
// entries than the rate allows, by the clock of this machine. A place among
// those that may ask at once is a locked byte, which is free when its holder
// dies. The times of the entries are kept in a file, without waiting for the
// disk: a power cut takes longer than it could matter.
type Gate struct {
	dir    string
	limits func(ca string) fleet.Limits

	// Most is the longest time that Enter waits. What would take longer is
	// refused at once.
	Most time.Duration
	// Now is the clock, and Wait waits by it, until ctx ends.
	Now  func() time.Time
	Wait func(ctx context.Context, d time.Duration) error
}

var _ enrol.Gate = (*Gate)(nil)

// OpenGate returns the gate of a directory, which must exist.
func OpenGate(dir string, limits func(ca string) fleet.Limits, now func() time.Time) *Gate {
	return &Gate{dir: dir, limits: limits, Most: DefaultGateWait, Now: now, Wait: sleep}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var (
	errRate        = errors.New("as often as its rate allows")
	errConcurrency = errors.New("by as many as it takes at once")
	errMaintenance = errors.New("and is in a maintenance window")
	errGateBusy    = errors.New("and other processes use the gate")
)

// Enter implements enrol.Gate. A *enrol.TryLater has used up nothing.
func (g *Gate) Enter(ctx context.Context, ca string) (leave func(), err error) {
	limits := g.limits(ca)
	until := g.Now().Add(g.Most)
	if end, closed := limits.Calendar.Within(g.Now()); closed {
		return nil, later(ca, end.Sub(g.Now()), errMaintenance)
	}
	log := entries{path: g.path(ca, "rate"), rate: limits.Rate}
	if log.rate.Unlimited() {
		return g.place(ctx, ca, limits.Concurrency, until)
	}
	// Whoever would wait for the rate too long takes no place from others.
	if err := g.admit(ctx, ca, log, until, false); err != nil {
		return nil, err
	}
	leave, err = g.place(ctx, ca, limits.Concurrency, until)
	if err != nil {
		return nil, err
	}
	if err := g.admit(ctx, ca, log, until, true); err != nil {
		leave()
		return nil, err
	}
	return leave, nil
}

func later(ca string, after time.Duration, why error) error {
	return &enrol.TryLater{After: max(after, time.Second), Err: fmt.Errorf("CA %s is asked %w", ca, why)}
}

func (g *Gate) path(ca, kind string) string {
	h := fnv.New64a()
	// Writing to a hash never fails.
	_, _ = h.Write([]byte(ca))
	return filepath.Join(g.dir, fmt.Sprintf("gate-%016x.%s", h.Sum64(), kind))
}

// place takes one of the places of those that ask at once.
func (g *Gate) place(ctx context.Context, ca string, places int, until time.Time) (leave func(), err error) {
	if places <= 0 {
		return func() {}, nil
	}
	// Each holder has a file description of its own, which goroutines of one
	// process exclude each other with as processes do.
	file, err := openGateFile(g.path(ca, "places"))
	if err != nil {
		return nil, err
	}
	for {
		for i := range places {
			switch ok, err := tryLock(file, int64(i)); {
			case err != nil:
				return nil, errors.Join(err, file.Close())
			case ok:
				// Closing ends the lock; there is nothing else to lose.
				return func() { _ = file.Close() }, nil
			}
		}
		if !g.Now().Before(until) {
			return nil, errors.Join(later(ca, g.Most, errConcurrency), file.Close())
		}
		if err := g.Wait(ctx, gatePoll); err != nil {
			return nil, errors.Join(err, file.Close())
		}
	}
}

// admit waits until the rate allows one more entry and, with enter, takes it
// down; without, it only refuses what would take too long.
func (g *Gate) admit(ctx context.Context, ca string, log entries, until time.Time, enter bool) error {
	file, err := openGateFile(log.path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	for {
		ok, err := tryLock(file, lockByte)
		wait, why := gatePoll, errGateBusy
		if ok {
			wait, err = log.enter(file, g.Now(), enter)
			why = errRate
			err = errors.Join(err, unlock(file, lockByte))
		}
		switch {
		case err != nil:
			return fmt.Errorf("gate of CA %s: %w", ca, err)
		case ok && wait <= 0:
			return nil
		case g.Now().Add(wait).After(until):
			return later(ca, wait, why)
		case ok && !enter:
			return nil
		}
		if err := g.Wait(ctx, wait); err != nil {
			return err
		}
	}
}

func openGateFile(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, keyfile.SecretPerm)
	if err != nil {
		return nil, fmt.Errorf("open gate: %w", err)
	}
	return file, nil
}

func tryLock(file *os.File, offset int64) (bool, error) {
	err := setLock(file, offset, unix.F_WRLCK)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return false, nil
	}
	return err == nil, err
}

func unlock(file *os.File, offset int64) error { return setLock(file, offset, unix.F_UNLCK) }

func setLock(file *os.File, offset int64, kind int16) error {
	for {
		err := unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Start: offset, Len: 1})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
