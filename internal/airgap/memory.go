package airgap

import (
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// room is how much address space must be mappable once memory is locked: the
// runtime ends the process when it gets none.
const room = 1 << (29 + 3*(strconv.IntSize/64)) // 512 MiB, on 64-bit machines 4 GiB

// lockMemory locks what the process has and will have, as it is touched: the
// runtime reserves far more addresses than it uses, which locked at once would
// take that much memory.
func lockMemory() error {
	limit := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit) != nil {
		// Without the privilege: what the hard limit gives.
		if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
			return fmt.Errorf("%w: %w", ErrNotLocked, err)
		}
		limit.Cur = limit.Max
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
			return fmt.Errorf("%w: %w", ErrNotLocked, err)
		}
	}
	err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
	if err == nil {
		if err = growable(); err != nil {
			err = errors.Join(err, unix.Munlockall())
		}
	}
	if err != nil {
		return fmt.Errorf("%w: the limit is %s: %w", ErrNotLocked, size(limit.Max), err)
	}
	return nil
}

// growable sees that more memory can be mapped under the limit.
func growable() error {
	probe, err := unix.Mmap(-1, 0, room, unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		return err
	}
	return unix.Munmap(probe)
}

func size(limit uint64) string {
	if limit == unix.RLIM_INFINITY {
		return "unlimited"
	}
	return fmt.Sprintf("%d KiB", limit>>10)
}
