package airgap

import (
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data (seccomp(2)).
const (
	offsetCall = 0
	offsetArch = 4
)

// Verdicts of the filter.
const (
	allow  = unix.SECCOMP_RET_ALLOW
	refuse = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	kill   = unix.SECCOMP_RET_KILL_PROCESS
)

// x32Bit marks the calls of x32, a second set of numbers on amd64; it is in no
// number of the other architectures.
const x32Bit = 0x4000_0000

// refusedCalls are the system calls that end with EPERM; those that only this
// architecture has are in archCalls. Receiving is among them because a socket
// may be received, starting a program because nothing here needs one and what
// is not there cannot be abused.
func refusedCalls() []uint32 {
	return append([]uint32{
		// Sockets.
		unix.SYS_SOCKET, unix.SYS_SOCKETPAIR, unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_LISTEN,
		unix.SYS_ACCEPT, unix.SYS_ACCEPT4,
		unix.SYS_SENDTO, unix.SYS_SENDMSG, unix.SYS_SENDMMSG,
		unix.SYS_RECVFROM, unix.SYS_RECVMSG, unix.SYS_RECVMMSG,
		// A way past this filter: the kernel's threads make the calls.
		unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
		// Other processes: their memory and their open sockets.
		unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PIDFD_GETFD,
		unix.SYS_EXECVE, unix.SYS_EXECVEAT,
		// The kernel: code in it, and keys that outlive the process.
		unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD,
		unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD,
		unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL,
	}, archCalls()...)
}

// filter returns the program that the kernel runs at each system call. The
// numbers are those of one architecture: a call by another's convention (a
// 32-bit one on a 64-bit kernel, x32) ends the process, since its number would
// mean something else.
func filter(arch uint32, refused []uint32) []bpf.Instruction {
	n := uint8(len(refused))
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arch, SkipTrue: 1},
		bpf.RetConstant{Val: kill},
		bpf.LoadAbsolute{Off: offsetCall, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: x32Bit, SkipTrue: 1},
		bpf.RetConstant{Val: kill},
	}
	for i, call := range refused {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: call, SkipTrue: n - uint8(i)})
	}
	return append(program, bpf.RetConstant{Val: allow}, bpf.RetConstant{Val: refuse})
}
