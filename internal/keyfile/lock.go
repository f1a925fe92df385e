package keyfile

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Lock takes the advisory lock of a file, which it makes if need be, and
// returns what releases it. It does not wait: a lock held by another process
// is an error that wraps ErrLocked. The kernel releases it when the process
// ends, however it ends.
func Lock(path string) (unlock func() error, err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, SecretPerm)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		closeErr := file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, errors.Join(ErrLocked, closeErr))
		}
		return nil, fmt.Errorf("lock %s: %w", path, errors.Join(err, closeErr))
	}
	// The lock belongs to the open file, which a process that is just being
	// started has too, until its program runs: closing ours would leave it held.
	return func() error { return errors.Join(unix.Flock(int(file.Fd()), unix.LOCK_UN), file.Close()) }, nil
}
