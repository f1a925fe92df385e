package clmctl_test

import (
	"bytes"
	"context"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/edgeclm/edgeclm/internal/labpeer"
)

// servers are the background programs of one script.
type servers struct {
	mu      sync.Mutex
	running map[string]*labpeer.Process
	sockets map[string]*net.UDPConn
}

// output collects what a background program writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// serve starts a program in the background and waits until it has written
// something: serve NAME PATTERN COMMAND... sets the environment variable NAME
// to what the group of the pattern matched.
func (s *servers) serve(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: serve NAME PATTERN COMMAND [ARG...]")
	}
	name, pattern := args[0], regexp.MustCompile(args[1])
	binary := args[2]
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if path, err := exec.LookPath(filepath.Join(dir, binary)); err == nil {
			binary = path
			break
		}
	}
	var out output
	p, err := labpeer.StartProcessIn(context.Background(), ts.MkAbs("."), binary, args[3:], environment(ts), &out)
	ts.Check(err)
	ts.Defer(p.Stop)
	s.mu.Lock()
	s.running[ts.Name()+"/"+name] = p
	s.mu.Unlock()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if m := pattern.FindStringSubmatch(out.String()); m != nil {
			ts.Setenv(name, m[1])
			return
		}
		select {
		case <-p.Done():
			ts.Fatalf("%s ended: %s", args[2], &out)
		default:
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%s did not write %s: %s", args[2], args[1], &out)
		}
	}
}

// halt ends a program with SIGTERM, which it has to survive by less than its
// deadline and leave with code 0: halt NAME
func (s *servers) halt(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: halt NAME")
	}
	s.mu.Lock()
	p := s.running[ts.Name()+"/"+args[0]]
	s.mu.Unlock()
	ts.Check(syscall.Kill(p.PID(), syscall.SIGTERM))
	select {
	case <-p.Done():
		ts.Check(p.Err())
	case <-time.After(time.Minute):
		ts.Fatalf("%s goes on", args[0])
	}
}

// silent binds a UDP socket that never answers: silent NAME sets the
// environment variable NAME to its address.
func (s *servers) silent(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: silent NAME")
	}
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	ts.Check(err)
	ts.Defer(func() { _ = conn.Close() })
	s.mu.Lock()
	s.sockets[ts.Name()+"/"+args[0]] = conn
	s.mu.Unlock()
	ts.Setenv(args[0], conn.LocalAddr().String())
}

// hears waits until somebody speaks to a silent socket: hears NAME
func (s *servers) hears(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: hears NAME")
	}
	s.mu.Lock()
	conn := s.sockets[ts.Name()+"/"+args[0]]
	s.mu.Unlock()
	ts.Check(conn.SetReadDeadline(time.Now().Add(time.Minute)))
	_, _, err := conn.ReadFrom(make([]byte, 2048))
	ts.Check(err)
}

// environment is that of the script, as far as a program here needs it.
func environment(ts *testscript.TestScript) []string {
	out := []string{}
	for _, name := range []string{"HOME", "TMPDIR", "CLM_DATA_DIR", "GOCOVERDIR"} {
		if value := ts.Getenv(name); value != "" || strings.HasPrefix(name, "CLM_") {
			out = append(out, name+"="+value)
		}
	}
	return out
}
