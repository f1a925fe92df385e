package oslock

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// ErrClosed is wrapped by Take after Close.
var ErrClosed = errors.New("the leases are closed")

// Leases are the leases on devices of all processes that open the same file:
// one byte of it for each device, at an offset made from the device's name,
// locked with an open file description lock (fcntl(2), F_OFD_SETLK). The file
// stays empty. Two names with the same 62-bit hash share a lease, so one of
// the two waits for its next turn; nothing worse.
type Leases struct {
	file *os.File

	// An open file description does not exclude itself, so the goroutines of
	// this process are kept apart by a set.
	mu     sync.Mutex
	held   map[int64]bool
	closed bool
}

// OpenLeases opens the file of leases, mode 0600, and makes it if need be.
func OpenLeases(path string) (*Leases, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, keyfile.SecretPerm)
	if err != nil {
		return nil, fmt.Errorf("open leases: %w", err)
	}
	return &Leases{file: file, held: map[int64]bool{}}, nil
}

// Take takes the lease on a device and returns what releases it, which may be
// called more than once. It does not wait: a lease that somebody else has, in
// this process or another, is an error that wraps enrol.ErrLeased.
func (l *Leases) Take(device string) (release func(), err error) {
	offset := leaseOffset(device)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, fmt.Errorf("lease %s: %w", device, ErrClosed)
	}
	if l.held[offset] {
		return nil, fmt.Errorf("lease %s: %w", device, enrol.ErrLeased)
	}
	err = l.lock(offset, unix.F_WRLCK)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return nil, fmt.Errorf("lease %s: %w", device, enrol.ErrLeased)
	}
	if err != nil {
		return nil, fmt.Errorf("lease %s: %w", device, err)
	}
	l.held[offset] = true
	return sync.OnceFunc(func() { l.release(offset) }), nil
}

func (l *Leases) release(offset int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	// Unlocking a byte that is locked cannot fail but for lack of kernel
	// memory. Then the byte stays locked for others until the process ends,
	// and the set says the same to this one.
	if l.lock(offset, unix.F_UNLCK) == nil {
		delete(l.held, offset)
	}
}

func (l *Leases) lock(offset int64, kind int16) error {
	for {
		err := unix.FcntlFlock(l.file.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Start: offset, Len: 1})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Close releases every lease.
func (l *Leases) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	return l.file.Close()
}

// leaseOffset is non-negative and leaves room for the byte behind it.
func leaseOffset(device string) int64 {
	h := fnv.New64a()
	// Writing to a hash never fails.
	_, _ = h.Write([]byte(device))
	return int64(h.Sum64() >> 2)
}
