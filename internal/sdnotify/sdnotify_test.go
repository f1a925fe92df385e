package sdnotify

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func environment(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestNotify(t *testing.T) {
	abstract := fmt.Sprintf("@edgeclm-test-%d", os.Getpid())
	for _, address := range []string{filepath.Join(t.TempDir(), "notify"), abstract} {
		manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		n, err := New(environment("NOTIFY_SOCKET", address, "WATCHDOG_USEC", "30000000", "WATCHDOG_PID", fmt.Sprint(os.Getpid())))
		if err != nil || n.Interval != 30*time.Second {
			t.Errorf("%v, %v", n, err)
		}
		if err := n.Notify(Ready, Status("a\nb")); err != nil {
			t.Error(err)
		}
		buf := make([]byte, 100)
		size, err := manager.Read(buf)
		if got := string(buf[:size]); err != nil || got != "READY=1\nSTATUS=a b" {
			t.Errorf("%q, %v", got, err)
		}
		_ = manager.Close()
		if err := n.Notify(Watchdog); err == nil {
			t.Error("nobody listens, and it is no error")
		}
	}
}

func TestNoManager(t *testing.T) {
	n, err := New(environment("WATCHDOG_USEC", "1000000"))
	if err != nil || n.Interval != 0 || n.Notify(Ready) != nil {
		t.Errorf("%v, %v", n, err)
	}
	// The watchdog is another process's.
	n, err = New(environment("NOTIFY_SOCKET", "/run/x", "WATCHDOG_USEC", "1000000", "WATCHDOG_PID", "1"))
	if err != nil || n.Interval != 0 {
		t.Errorf("%v, %v", n, err)
	}
	for _, pairs := range [][]string{
		{"NOTIFY_SOCKET", "relative"},
		{"NOTIFY_SOCKET", "/run/x", "WATCHDOG_USEC", "often"},
		{"NOTIFY_SOCKET", "/run/x", "WATCHDOG_USEC", "0"},
		{"NOTIFY_SOCKET", "/run/x", "WATCHDOG_USEC", "99999999999999"},
	} {
		if n, err := New(environment(pairs...)); err == nil || n.Interval != 0 {
			t.Errorf("%q: %v, %v", pairs, n, err)
		}
	}
}
