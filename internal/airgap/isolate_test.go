package airgap_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/edgeclm/edgeclm/internal/airgap"
	"github.com/edgeclm/edgeclm/internal/testpeer"
)

// role names the part that a copy of the test program plays: a process cannot
// be let out again once it is cut off.
const role = "EDGECLM_AIRGAP_TEST"

func TestMain(m *testing.M) {
	parts := map[string]func() error{"report": report, "isolate": isolate, "facts": realFacts, "x32": x32}
	part, ok := parts[os.Getenv(role)]
	if !ok {
		os.Exit(m.Run())
	}
	if err := part(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// act runs a copy of the test program in a part.
func act(t *testing.T, part string, change func(*exec.Cmd)) (stdout string, err error) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), role+"="+part)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if change != nil {
		change(cmd)
	}
	if err = cmd.Run(); err != nil {
		err = fmt.Errorf("%w: %s", err, errOut.String())
	}
	if strings.Contains(errOut.String(), "install the seccomp filter") {
		testpeer.Missing(t, "seccomp filters are not allowed here: "+errOut.String())
	}
	return out.String(), err
}

// attempt is what a thread got for a system call.
type attempt struct{ Thread, Call, Error string }

// reported is what a process that was cut off sees of itself.
type reported struct {
	Attempts               []attempt
	Status                 map[string]string // of each thread: Seccomp and NoNewPrivs
	Dumpable               int
	Core                   unix.Rlimit
	NotLocked              string
	Locked, Resident, Size string // VmLck, VmRSS, VmSize
	Exec                   string
	Dial                   string
	SocketsOpen            int
}

// allowed is the one probe that must succeed: it shows that the others could.
const allowed = "getppid"

// probes are calls that must end with EPERM; without a filter each would fail
// otherwise, or succeed.
func probes() map[string]func() error {
	call := func(number uintptr, args ...uintptr) func() error {
		var a [3]uintptr
		copy(a[:], args)
		return func() error {
			if _, _, errno := unix.RawSyscall(number, a[0], a[1], a[2]); errno != 0 {
				return errno
			}
			return nil
		}
	}
	return map[string]func() error{
		"socket inet":       call(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM),
		"socket inet6":      call(unix.SYS_SOCKET, unix.AF_INET6, unix.SOCK_DGRAM),
		"socket unix":       call(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM),
		"socket netlink":    call(unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW),
		"socket packet":     call(unix.SYS_SOCKET, unix.AF_PACKET, unix.SOCK_RAW),
		"socket vsock":      call(unix.SYS_SOCKET, unix.AF_VSOCK, unix.SOCK_STREAM),
		"socket alg":        call(unix.SYS_SOCKET, unix.AF_ALG, unix.SOCK_SEQPACKET),
		"socketpair":        call(unix.SYS_SOCKETPAIR, unix.AF_UNIX, unix.SOCK_STREAM),
		"connect":           call(unix.SYS_CONNECT, ^uintptr(0)),
		"bind":              call(unix.SYS_BIND, ^uintptr(0)),
		"listen":            call(unix.SYS_LISTEN, ^uintptr(0)),
		"accept":            call(unix.SYS_ACCEPT, ^uintptr(0)),
		"accept4":           call(unix.SYS_ACCEPT4, ^uintptr(0)),
		"sendto":            call(unix.SYS_SENDTO, ^uintptr(0)),
		"sendmsg":           call(unix.SYS_SENDMSG, ^uintptr(0)),
		"sendmmsg":          call(unix.SYS_SENDMMSG, ^uintptr(0)),
		"recvfrom":          call(unix.SYS_RECVFROM, ^uintptr(0)),
		"recvmsg":           call(unix.SYS_RECVMSG, ^uintptr(0)),
		"recvmmsg":          call(unix.SYS_RECVMMSG, ^uintptr(0)),
		"io_uring_setup":    call(unix.SYS_IO_URING_SETUP, 1),
		"io_uring_enter":    call(unix.SYS_IO_URING_ENTER, ^uintptr(0)),
		"io_uring_register": call(unix.SYS_IO_URING_REGISTER, ^uintptr(0)),
		"ptrace":            call(unix.SYS_PTRACE, unix.PTRACE_ATTACH),
		"process_vm_readv":  call(unix.SYS_PROCESS_VM_READV, 1),
		"process_vm_writev": call(unix.SYS_PROCESS_VM_WRITEV, 1),
		"pidfd_getfd":       call(unix.SYS_PIDFD_GETFD, ^uintptr(0)),
		"execve":            call(unix.SYS_EXECVE),
		"execveat":          call(unix.SYS_EXECVEAT),
		"bpf":               call(unix.SYS_BPF, 0),
		"perf_event_open":   call(unix.SYS_PERF_EVENT_OPEN),
		"userfaultfd":       call(unix.SYS_USERFAULTFD, ^uintptr(0)),
		"init_module":       call(unix.SYS_INIT_MODULE),
		"finit_module":      call(unix.SYS_FINIT_MODULE, ^uintptr(0)),
		"kexec_load":        call(unix.SYS_KEXEC_LOAD),
		"kexec_file_load":   call(unix.SYS_KEXEC_FILE_LOAD, ^uintptr(0)),
		"add_key":           call(unix.SYS_ADD_KEY),
		"request_key":       call(unix.SYS_REQUEST_KEY),
		"keyctl":            call(unix.SYS_KEYCTL, ^uintptr(0)),
		allowed:             call(unix.SYS_GETPPID),
	}
}

// report cuts itself off while threads wait that were made before, and tells
// what each of them, and threads made later, can still do.
func report() error {
	if os.Getenv(role+"_NOBODY") != "" {
		if err := errors.Join(
			unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: 1 << 20, Max: 8 << 20}),
			dropRoot()); err != nil {
			return err
		}
	}
	var mu sync.Mutex
	var r reported
	try := func(thread string) {
		for name, probe := range probes() {
			text := "none"
			if err := probe(); err != nil {
				text = err.Error()
			}
			mu.Lock()
			r.Attempts = append(r.Attempts, attempt{thread, name, text})
			mu.Unlock()
		}
	}
	const threads = 6
	var ready, done sync.WaitGroup
	start, end := make(chan struct{}), make(chan struct{})
	launch := func(kind string, wait bool) {
		ready.Add(threads)
		done.Add(threads)
		for i := range threads {
			go func() {
				runtime.LockOSThread()
				if wait {
					ready.Done()
					<-start
				}
				try(fmt.Sprint(kind, i))
				if !wait {
					ready.Done()
				}
				done.Done()
				<-end // the threads stay, for their status to be read
			}()
		}
	}
	launch("before", true)
	ready.Wait()
	result, err := airgap.Isolate()
	if err != nil {
		return err
	}
	close(start)
	launch("after", false)
	done.Wait()
	if result.NotLocked != nil {
		r.NotLocked = result.NotLocked.Error()
	}
	if err := r.look(); err != nil {
		return err
	}
	close(end)
	if again, err := airgap.Isolate(); err != nil || (again.NotLocked == nil) != (result.NotLocked == nil) {
		return fmt.Errorf("isolated again: %+v, %w", again, err)
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

func dropRoot() error {
	if os.Getuid() != 0 {
		return nil
	}
	return errors.Join(syscall.Setgid(65534), syscall.Setuid(65534))
}

// look fills in what the process sees of itself.
func (r *reported) look() error {
	r.Status = map[string]string{}
	tasks, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		status, err := os.ReadFile(task)
		if err != nil {
			return err
		}
		r.Status[task] = field(status, "Seccomp") + " " + field(status, "NoNewPrivs")
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	r.Locked, r.Resident, r.Size = field(status, "VmLck"), field(status, "VmRSS"), field(status, "VmSize")
	if r.Dumpable, err = unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return err
	}
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &r.Core); err != nil {
		return err
	}
	if err := exec.Command("/proc/self/exe").Run(); err != nil {
		r.Exec = err.Error()
	}
	if _, err := net.Dial("udp", "127.0.0.1:9"); err != nil {
		r.Dial = err.Error()
	}
	r.SocketsOpen, err = openSockets()
	return err
}

func field(status []byte, name string) string {
	_, rest, _ := strings.Cut(string(status), "\n"+name+":")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

func openSockets() (int, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	n := 0
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(target, "socket:") {
			n++
		}
	}
	return n, err
}

// After Isolate no thread, made before or later, gets a socket or any other way
// out; no core is dumped, nobody may trace the process.
func TestNothingLeadsOutOfAnIsolatedProcess(t *testing.T) {
	for name, nobody := range map[string]string{"as this user": "", "as nobody": "yes"} {
		t.Run(name, func(t *testing.T) {
			out, err := act(t, "report", func(c *exec.Cmd) { c.Env = append(c.Env, role+"_NOBODY="+nobody) })
			if err != nil {
				t.Fatal(err)
			}
			var r reported
			if err := json.Unmarshal([]byte(out), &r); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			r.check(t)
			locked := r.NotLocked == ""
			if want := nobody == "" && canLock(); locked != want {
				t.Errorf("memory locked: %t (%s), want %t", locked, r.NotLocked, want)
			}
			if locked != (r.Locked != "0 kB") {
				t.Errorf("VmLck is %s", r.Locked)
			}
			t.Logf("VmLck %s, VmRSS %s, VmSize %s", r.Locked, r.Resident, r.Size)
		})
	}
}

func (r *reported) check(t *testing.T) {
	t.Helper()
	if want := 12 * len(probes()); len(r.Attempts) != want {
		t.Errorf("%d attempts, want %d", len(r.Attempts), want)
	}
	for _, a := range r.Attempts {
		if ok := a.Call == allowed; ok != (a.Error == "none") || !ok && a.Error != unix.EPERM.Error() {
			t.Errorf("thread %s: %s: error %s", a.Thread, a.Call, a.Error)
		}
	}
	if len(r.Status) < 12 {
		t.Errorf("only %d threads", len(r.Status))
	}
	for task, status := range r.Status {
		if status != "2 1" {
			t.Errorf("%s: Seccomp and NoNewPrivs are %s", task, status)
		}
	}
	if r.Dumpable != 0 || r.Core != (unix.Rlimit{}) {
		t.Errorf("dumpable %d, core limit %+v", r.Dumpable, r.Core)
	}
	for what, text := range map[string]string{"start a program": r.Exec, "dial": r.Dial} {
		if !strings.Contains(text, "operation not permitted") {
			t.Errorf("%s: %q", what, text)
		}
	}
	if r.SocketsOpen != 0 {
		t.Errorf("%d sockets are open", r.SocketsOpen)
	}
}

// canLock reports whether this user may lock memory without bound.
func canLock() bool {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return false
	}
	status, err := os.ReadFile("/proc/self/status")
	var caps uint64
	_, scanErr := fmt.Sscanf(field(status, "CapEff"), "%x", &caps)
	const lock, resource = 1 << unix.CAP_IPC_LOCK, 1 << unix.CAP_SYS_RESOURCE
	return err == nil && scanErr == nil && (limit.Max == unix.RLIM_INFINITY || caps&(lock|resource) != 0)
}

// x32 makes a call by the numbers of x32.
func x32() error {
	if _, err := airgap.Isolate(); err != nil {
		return err
	}
	_, _, errno := unix.RawSyscall(0x4000_0000|unix.SYS_GETPID, 0, 0, 0)
	return fmt.Errorf("survived: %w", errno)
}

// isolate cuts itself off and counts the sockets that it still has.
func isolate() error {
	if _, err := airgap.Isolate(); err != nil {
		return err
	}
	n, err := openSockets()
	fmt.Println(n)
	return err
}

// Attack: the process is started with an open connection, for somebody to write
// to it later: write(2) is no call that a filter could refuse.
func TestAttackInheritedConnection(t *testing.T) {
	conn, err := net.Dial("udp", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	network, err := conn.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = network.Close() }()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	local, other := os.NewFile(uintptr(pair[0]), "local"), os.NewFile(uintptr(pair[1]), "other")
	defer func() { _, _ = local.Close(), other.Close() }()

	out, err := act(t, "isolate", func(c *exec.Cmd) { c.ExtraFiles = []*os.File{network, local} })
	if err != nil || out != "0\n" {
		t.Errorf("inherited beside the standard streams: %q, %v; want it closed", out, err)
	}
	_, err = act(t, "isolate", func(c *exec.Cmd) { c.Stdin = network })
	if err == nil || !strings.Contains(err.Error(), airgap.ErrInherited.Error()) {
		t.Errorf("a network connection as standard input: error %v, want ErrInherited", err)
	}
	out, err = act(t, "isolate", func(c *exec.Cmd) { c.Stdin = local })
	if err != nil || out != "1\n" {
		t.Errorf("a local socket as standard input: %q, %v", out, err)
	}
}
