package devagent

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/enrol"
)

// manager is a service manager.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	m := &manager{t: t, path: filepath.Join(t.TempDir(), "notify")}
	var err error
	if m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.conn.Close() })
	return m
}

// wait waits for a message that begins like this, and drops others.
func (m *manager) wait(prefix string) {
	m.t.Helper()
	_ = m.conn.SetReadDeadline(time.Now().Add(time.Minute))
	buf := make([]byte, 4096)
	for {
		n, err := m.conn.Read(buf)
		if err != nil {
			m.t.Fatalf("wait for %s: %v", prefix, err)
		}
		if strings.HasPrefix(string(buf[:n]), prefix) {
			return
		}
	}
}

// The service manager hears that the agent is ready, that it lives, that it
// reads its configuration again, and that it stops.
func TestServiceManager(t *testing.T) {
	d := newDevice(t)
	d.close()
	m := newManager(t)
	a := &app{Deps: Deps{Now: time.Now, Random: rand.Reader}}
	a.Err = io.Discard
	a.Getenv = func(name string) string {
		return map[string]string{"NOTIFY_SOCKET": m.path, "WATCHDOG_USEC": "100000"}[name]
	}
	c, err := parse(t, d.dir, nil, "--listen", "127.0.0.1:0")
	d.must(err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	hangUp := make(chan os.Signal, 1)
	served := make(chan error, 1)
	mistake := errors.New("a mistake")
	reloads := 0
	go func() {
		served <- a.serve(ctx, c, hangUp, func() (config, error) {
			reloads++
			if reloads == 1 {
				return config{}, mistake
			}
			return c, nil
		})
	}()
	m.wait("READY=1\nSTATUS=edgeclm/v1/dev/plc-1/e1.g1 on 127.0.0.1:")
	m.wait("WATCHDOG=1")
	m.wait("WATCHDOG=1")
	for range 2 { // once with a mistake, which is not used
		hangUp <- syscall.SIGHUP
		m.wait("RELOADING=1")
		m.wait("READY=1")
		m.wait("WATCHDOG=1")
	}
	cancel()
	m.wait("STOPPING=1")
	if err := <-served; err != nil || reloads != 2 {
		t.Errorf("%v after %d reloads", err, reloads)
	}
}

// A hook, or a request, that never ends is a hang; one that takes its time is
// not.
func TestAlive(t *testing.T) {
	d := newDevice(t)
	d.activate(1)
	d.stage(2)
	d.close()
	began, release := make(chan struct{}), make(chan struct{})
	var err error
	d.agent, err = agent.Open(agent.Config{Dir: d.dir, Reload: func(context.Context, agent.Paths) error {
		close(began)
		<-release
		return nil
	}})
	d.must(err)
	server := &coaplink.Server{}
	if err := alive(t.Context(), d.agent, server, time.Hour); !errors.Is(err, coaplink.ErrNotServing) {
		t.Errorf("idle: %v", err)
	}
	status, err := d.agent.Status(t.Context(), d.peer())
	d.must(err)
	done := make(chan error)
	go func() {
		done <- d.agent.Activate(context.Background(), d.peer(), enrol.ID{2}, status.Staged.SHA256, 0)
	}()
	<-began
	if err := alive(t.Context(), d.agent, server, time.Hour); !errors.Is(err, coaplink.ErrNotServing) {
		t.Errorf("busy: %v", err)
	}
	if err := alive(t.Context(), d.agent, server, 0); err == nil || !strings.Contains(err.Error(), "hanging") {
		t.Errorf("hung: %v", err)
	}
	close(release)
	d.must(<-done)
	if busy := d.agent.Busy(); busy != 0 {
		t.Errorf("busy for %v", busy)
	}
}
