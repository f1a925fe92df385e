package coaplink

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/coaplink/lossy"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// TestSilence: nobody answers, and the caller's context ends the attempt.
func TestSilence(t *testing.T) {
	p := newPKG(t, 1)
	key := p.key(t, ibc.RoleDevice, "plc-1", 1)
	addr, _ := serve(t, newServer(key, newPeers("clm-1"), &fakeServices{}))
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	_, err := p.dialer(t, "clm-1", 1).Dial(ctx, deviceAt(key, lossy.Start(t, addr, 1, 0)))
	if !errors.Is(err, enrol.ErrUnreachable) {
		t.Errorf("err = %v", err)
	}
}

// TestDeviceVanishes: the network takes the device away on an open channel. The
// call ends long before its own time does.
func TestDeviceVanishes(t *testing.T) {
	t.Parallel()
	d := newTestDevice(t)
	proxy := lossy.New(t, d.addr, lossy.Faults{})
	dialer := d.pkg.dialer(t, "clm-1", 1)
	dialer.Timeouts = Timeouts{Exchange: time.Hour, Silence: time.Second}
	link := dial(t, dialer, deviceAt(d.key, proxy.Addr()))
	proxy.Sever(true)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if _, err := link.Status(ctx); !errors.Is(err, enrol.ErrUnreachable) || !errors.Is(err, errSilent) {
		t.Errorf("err = %v", err)
	}
}

// TestBusyIsNotSilent: a device that takes much longer for a request than it
// may be silent answers pings meanwhile.
func TestBusyIsNotSilent(t *testing.T) {
	t.Parallel()
	d := newTestDevice(t)
	dialer := d.pkg.dialer(t, "clm-1", 1)
	dialer.Timeouts.Silence = 4 * time.Second
	link := dial(t, dialer, deviceAt(d.key, d.addr))
	d.services.setHook(func(string) { time.Sleep(10 * time.Second) })
	if _, err := link.Status(context.Background()); err != nil {
		t.Error(err)
	}
}
