package coaplink

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// eventually waits for a condition that another goroutine brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// TestCachedBinding: a device verifies a CLM's binding once, also when it
// restarts in between and when the CLM is a new process each time.
func TestCachedBinding(t *testing.T) {
	p := newPKG(t, 1)
	key := p.key(t, ibc.RoleDevice, "plc-1", 1)
	peers := newPeers("clm-1")
	clm := p.key(t, ibc.RoleCLM, "clm-1", 1)
	stored, err := p.credential(t, "clm-1", 1).MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		addr, stop := serve(t, newServer(key, peers, &fakeServices{status: sampleStatus(key.Identity())}))
		for range 2 {
			credential, err := ParseCredential(stored, clm)
			if err != nil {
				t.Fatal(err)
			}
			link := dial(t, &Dialer{Credential: credential, Params: []*ibc.Params{p.Params()}, Random: newServer(key, nil, nil).Random}, deviceAt(key, addr))
			if _, err := link.Status(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		stop()
	}
	if n := peers.pairings(); n != 1 {
		t.Errorf("the binding was verified %d times", n)
	}
	addr, _ := serve(t, newServer(key, peers, &fakeServices{}))
	dial(t, p.dialer(t, "clm-1", 1), deviceAt(key, addr))
	if n := peers.pairings(); n != 2 {
		t.Errorf("another certificate of the same CLM: %d pairings in all", n)
	}
}

// TestForgottenIdentity: the cache is asked for the certificate but believed
// only if it says what the certificate says.
func TestForgottenIdentity(t *testing.T) {
	p := newPKG(t, 1)
	peers := newPeers("clm-1")
	credential := p.credential(t, "clm-1", 1)
	other := credential.Identity()
	other.Generation = 9
	shown, err := parsePresented([][]byte{credential.Certificate()})
	if err != nil {
		t.Fatal(err)
	}
	peers.certs[shown.sum] = other
	if _, params, err := acceptCLM([][]byte{credential.Certificate()}, []*ibc.Params{p.Params()}, peers); err != nil || params == nil {
		t.Errorf("the binding is not verified again: %v, %v", params, err)
	}
}

// TestRaisedFloor: a CLM's later key replaces the earlier one on a device with
// its first handshake: sessions of the earlier one end, its remembered binding
// is worth nothing, and the new floor was stored before anything was served.
func TestRaisedFloor(t *testing.T) {
	p := newPKG(t, 1)
	key := p.key(t, ibc.RoleDevice, "plc-1", 1)
	peers := newPeers("clm-1", "clm-2")
	services := &fakeServices{status: sampleStatus(key.Identity())}
	later := ibc.Identity{Role: ibc.RoleCLM, Name: "clm-1", Epoch: 1, Generation: 2}
	services.setHook(func(string) {
		services.mu.Lock()
		latest := services.peers[len(services.peers)-1]
		services.mu.Unlock()
		if latest == later && !slices.Contains(peers.raises(), later) {
			t.Error("served before the floor was stored")
		}
	})
	addr, _ := serve(t, newServer(key, peers, services))
	ctx := context.Background()
	old := p.dialer(t, "clm-1", 1)
	first, bystander := dial(t, old, deviceAt(key, addr)), dial(t, p.dialer(t, "clm-2", 1), deviceAt(key, addr))
	if _, err := first.Status(ctx); err != nil {
		t.Fatal(err)
	}
	if raised := peers.raises(); len(raised) != 0 {
		t.Errorf("raised without need: %v", raised)
	}
	second := dial(t, p.dialer(t, "clm-1", 2), deviceAt(key, addr))
	if _, err := second.Status(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Status(ctx); !errors.Is(err, enrol.ErrUnreachable) {
		t.Errorf("the session of the replaced key answers: %v", err)
	}
	if _, err := bystander.Status(ctx); err != nil {
		t.Errorf("another CLM lost its session: %v", err)
	}
	if _, err := old.Dial(ctx, deviceAt(key, addr)); !errors.Is(err, enrol.ErrIdentity) {
		t.Errorf("the replaced key is accepted: %v", err)
	}
	if n := peers.pairings(); n != 3 {
		t.Errorf("%d pairings for three keys", n)
	}
}

// TestFloorNotStored: a device that cannot store the new floor serves nobody
// by it.
func TestFloorNotStored(t *testing.T) {
	p := newPKG(t, 1)
	key := p.key(t, ibc.RoleDevice, "plc-1", 1)
	peers := newPeers("clm-1")
	peers.raiseErr = errors.New("disk full")
	services := &fakeServices{}
	log := &logBuffer{}
	s := newServer(key, peers, services)
	s.Log = log.logger()
	addr, stop := serve(t, s)
	d := p.dialer(t, "clm-1", 2)
	d.Timeouts = Timeouts{Handshake: 3 * time.Second, Exchange: 3 * time.Second}
	// The device hangs up at the end of the handshake, which the CLM may notice
	// within it or after it.
	link, err := d.Dial(context.Background(), deviceAt(key, addr))
	if err == nil {
		_, err = link.Status(context.Background())
		_ = link.Close()
	}
	if !errors.Is(err, enrol.ErrUnreachable) {
		t.Errorf("err = %v", err)
	}
	stop()
	if len(services.calls) > 0 || !strings.Contains(log.String(), "disk full") {
		t.Errorf("calls %v, log:\n%s", services.calls, log)
	}
}

// TestSessionLimit: one CLM that opens session after session pushes out its
// own, not another's.
func TestSessionLimit(t *testing.T) {
	p := newPKG(t, 1)
	key := p.key(t, ibc.RoleDevice, "plc-1", 1)
	s := newServer(key, newPeers("clm-1", "clm-2"), &fakeServices{status: sampleStatus(key.Identity())})
	s.Limits.Sessions = 4
	addr, _ := serve(t, s)
	quiet := dial(t, p.dialer(t, "clm-2", 1), deviceAt(key, addr))
	d := p.dialer(t, "clm-1", 1)
	var links []enrol.Device
	for range 8 {
		links = append(links, dial(t, d, deviceAt(key, addr)))
	}
	if _, err := quiet.Status(context.Background()); err != nil {
		t.Errorf("the other CLM's session: %v", err)
	}
	if _, err := links[7].Status(context.Background()); err != nil {
		t.Errorf("the latest session: %v", err)
	}
	if _, err := links[0].Status(context.Background()); !errors.Is(err, enrol.ErrUnreachable) {
		t.Errorf("the oldest session: %v", err)
	}
}

// TestIdleSessionEnds, and a busy one does not. The clock is the test's.
func TestIdleSessionEnds(t *testing.T) {
	p := newPKG(t, 1)
	key := p.key(t, ibc.RoleDevice, "plc-1", 1)
	var mu sync.Mutex
	now := time.Unix(1e9, 0)
	advance := func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		now = now.Add(d)
	}
	s := newServer(key, newPeers("clm-1"), &fakeServices{})
	s.Now = func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	v, err := newServing(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	idle := &session{server: v}
	idle.close = func() { close(closed) }
	idle.touch()
	idle.busy.Store(1)
	advance(11 * time.Minute)
	idle.expire()
	select {
	case <-closed:
		t.Fatal("closed while it was busy")
	default:
	}
	idle.touch()
	idle.busy.Store(0)
	advance(9 * time.Minute)
	idle.expire()
	select {
	case <-closed:
		t.Fatal("closed before its time")
	default:
	}
	advance(2 * time.Minute)
	idle.expire()
	<-closed
}

// TestNothingLeftBehind: no goroutine survives channel and server, whichever
// side closes first, nor a refused handshake.
func TestNothingLeftBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	p := newPKG(t, 1)
	key := p.key(t, ibc.RoleDevice, "plc-1", 1)
	for range 3 {
		addr, stop := serve(t, newServer(key, newPeers("clm-1"), &fakeServices{status: sampleStatus(key.Identity())}))
		ctx := context.Background()
		first := dial(t, p.dialer(t, "clm-1", 1), deviceAt(key, addr))
		second := dial(t, p.dialer(t, "clm-1", 1), deviceAt(key, addr))
		for _, link := range []enrol.Device{first, second} {
			if _, err := link.Status(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := p.dialer(t, "clm-9", 1).Dial(ctx, deviceAt(key, addr)); err == nil {
			t.Fatal("a stranger was accepted")
		}
		if err := first.Close(); err != nil {
			t.Error(err)
		}
		stop()
		if _, err := second.Status(ctx); !errors.Is(err, enrol.ErrUnreachable) {
			t.Errorf("after the server stopped: %v", err)
		}
		if err := second.Close(); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "all goroutines end", func() bool { return runtime.NumGoroutine() <= before })
}
