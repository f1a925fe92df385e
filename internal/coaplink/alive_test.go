package coaplink

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

func runDemux(t *testing.T, conn net.PacketConn) *demux {
	t.Helper()
	d := newDemux(conn, nil, nil, nil)
	done := make(chan error, 1)
	go func() { done <- d.run() }()
	t.Cleanup(func() {
		d.close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("the loop ended with %v", err)
		}
	})
	return d
}

// The loop answers many who ask, between datagrams that mean nothing to it.
func TestAlive(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := runDemux(t, conn)
	stray, err := net.Dial("udp", conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stray.Close() }()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				_, _ = stray.Write([]byte("garbage"))
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				if err := d.alive(ctx); err != nil {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	wg.Wait()
}

// stuck is a socket whose reader hangs, whatever its deadline, until it is
// released.
type stuck struct {
	net.PacketConn
	release chan struct{}
}

func (s stuck) ReadFrom(p []byte) (int, net.Addr, error) {
	<-s.release
	return s.PacketConn.ReadFrom(p)
}

// A loop that hangs does not answer; once it works again it does.
func TestHungLoop(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := stuck{conn, make(chan struct{})}
	d := runDemux(t, s)
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if err := d.alive(ctx); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		cancel()
	}
	close(s.release)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := d.alive(ctx); err != nil {
		t.Error(err)
	}
}
