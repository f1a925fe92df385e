package airgap

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Isolation is what Isolate achieved beyond what it must.
type Isolation struct {
	// NotLocked says why memory is not locked, as an error that wraps
	// ErrNotLocked; nil: it is.
	NotLocked error
}

// Isolate cuts the process off for the rest of its life, all of its threads and
// those to come. It may be called again. Errors wrap ErrDenial.
//
// Sockets that were inherited are closed. Standard input, output and error may
// be local ones, as sshd and supervisors hand out; a connection to a network
// there is refused.
func Isolate() (Isolation, error) {
	for _, step := range []func() error{noCore, dropSockets, filterCalls, proveFilter} {
		if err := step(); err != nil {
			return Isolation{}, fmt.Errorf("%w: %w", ErrDenial, err)
		}
	}
	return Isolation{NotLocked: lockMemory()}, nil
}

// noCore keeps memory from core dumps, from debuggers and from /proc/PID/mem.
// The limit alone would not stop a core_pattern that pipes to a program.
func noCore() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("turn off core dumps: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("turn off debugging: %w", err)
	}
	return nil
}

// dropSockets closes the sockets that this process was given: what was opened
// before the filter could be written to under it.
func dropSockets() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list open files: %w", err)
	}
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || !strings.HasPrefix(target, "socket:") {
			continue // the directory itself is closed by now
		}
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			return fmt.Errorf("list open files: %w", err)
		}
		if fd > 2 {
			if err := unix.Close(fd); err != nil {
				return fmt.Errorf("close inherited socket %d: %w", fd, err)
			}
			continue
		}
		family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
		if err != nil {
			return fmt.Errorf("look at inherited socket %d: %w", fd, err)
		}
		if family != unix.AF_UNIX {
			return fmt.Errorf("%w: file descriptor %d is a socket of address family %d", ErrInherited, fd, family)
		}
	}
	return nil
}

// filterCalls installs the filter for all threads at once.
func filterCalls() error {
	program, err := assemble(filter(auditArch, refusedCalls()))
	if err != nil {
		return err
	}
	raw := make([]unix.SockFilter, len(program))
	for i, in := range program {
		raw[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	prog := unix.SockFprog{Len: uint16(len(raw)), Filter: &raw[0]}
	// The promise to gain no privileges is the calling thread's; with TSYNC the
	// filter takes it to the others.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&prog))) //nolint:gosec // G103: the system call takes an address
	runtime.KeepAlive(raw)
	switch {
	case errno != 0:
		return fmt.Errorf("install the seccomp filter: %w", errno)
	case thread != 0:
		return fmt.Errorf("install the seccomp filter: thread %d has another one", thread)
	}
	return nil
}

func assemble(program []bpf.Instruction) ([]bpf.RawInstruction, error) {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, fmt.Errorf("assemble the seccomp filter: %w", err)
	}
	return raw, nil
}

// proveFilter sees that the filter refuses: an emulator may accept one and
// never run it.
func proveFilter() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err == nil {
		err = unix.Close(fd)
		return errors.Join(errors.New("a socket could be opened under the seccomp filter"), err)
	}
	if !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("the seccomp filter does not refuse a socket: %w", err)
	}
	return nil
}
