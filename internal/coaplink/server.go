package coaplink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Services is what a device does on request of an authenticated CLM. Calls may
// be repeated with the same arguments and must then have the same result. A
// refusal is a *enrol.DeviceError, whose Detail reaches the CLM; any other
// error becomes an internal one without details. The context ends when the
// server stops, not when the peer goes.
type Services interface {
	CSR(ctx context.Context, peer ibc.Identity, req enrol.CSRRequest) ([]byte, error)
	Verify(ctx context.Context, peer ibc.Identity, req enrol.VerifyRequest) (enrol.VerifyResponse, error)
	Activate(ctx context.Context, peer ibc.Identity, id enrol.ID, certificate [32]byte, confirmWithin time.Duration) error
	Confirm(ctx context.Context, peer ibc.Identity, id enrol.ID, certificate [32]byte) error
	Rollback(ctx context.Context, peer ibc.Identity, id enrol.ID, certificate [32]byte) error
	Bundle(ctx context.Context, peer ibc.Identity, sealed []byte) error
	// Lifeboat takes a lifeboat statement with a bundle behind it from anybody;
	// from names him in words.
	Lifeboat(ctx context.Context, from string, data []byte) error
	Anchors(ctx context.Context, peer ibc.Identity, change enrol.AnchorChange) error
	Status(ctx context.Context, peer ibc.Identity) (enrol.DeviceStatus, error)
}

// PeerStore keeps, across restarts, which CLMs a device accepts. It is safe
// for concurrent use.
type PeerStore interface {
	// Floor returns the lowest (epoch, generation) of that CLM name that is
	// still accepted: the bundle's, or the highest ever accepted if that is
	// later. ok is false if the bundle does not name the CLM.
	Floor(name string) (epoch, generation uint32, ok bool)
	// Raise makes id the floor of its name; durably when it returns. An id
	// below the floor changes nothing, one of another root than Self's an error.
	Raise(id ibc.Identity, root uint32) error
	// Cached returns whose binding certificate with this SHA-256 was
	// remembered.
	Cached(certificate [32]byte) (ibc.Identity, bool)
	// Remember keeps a binding certificate that was verified. The store may
	// forget any, and forgets those below a floor.
	Remember(certificate [32]byte, id ibc.Identity) error
}

// Self is who a device is, which a request may change. It is safe for
// concurrent use.
type Self interface {
	// Present returns the key of the device's identity, which it proves from the
	// next handshake on, and the parameters that verify CLMs, one for each epoch
	// in use.
	Present() (*ibc.PrivateKey, []*ibc.Params)
	// Root is another one once a lifeboat has changed the root of trust: what was
	// proved under the old root is void.
	Root() uint32
	// Settle takes note that a handshake has finished in which the device proved
	// own and the CLM peer, before that is served. Floors may rise by it.
	Settle(own, peer ibc.Identity)
}

// Server is the device's end. Its fields are not changed while it serves.
type Server struct {
	Self     Self
	Peers    PeerStore
	Services Services
	Trusted  func(netip.Addr) bool // whether the bundle knows a source as a CLM's; nil: none is
	Random   io.Reader             // safe for concurrent use
	Now      func() time.Time      // time.Now, or one that also carries a monotonic reading
	Log      *slog.Logger
	Limits   Limits

	mux atomic.Pointer[demux] // nil: Serve does not run
}

// ErrNotServing is wrapped by Alive before Serve and after it.
var ErrNotServing = errors.New("the server does not serve")

// Alive returns nil once the loop that reads the socket has shown that it
// works, and an error if it has not when the context ends.
func (s *Server) Alive(ctx context.Context) error {
	mux := s.mux.Load()
	if mux == nil {
		return ErrNotServing
	}
	if err := mux.alive(ctx); err != nil {
		return fmt.Errorf("the loop of the socket: %w", err)
	}
	return nil
}

// Serve answers peers on a UDP socket until the context ends, which is no
// error, or the socket fails. It closes the socket and every session, and
// returns when the last request has ended.
func (s *Server) Serve(ctx context.Context, conn net.PacketConn) error {
	if id := s.identity(); id.Role != ibc.RoleDevice {
		return fmt.Errorf("serve as %s: it has not the role %s", id, ibc.RoleDevice)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	v, err := newServing(ctx, s)
	if err != nil {
		return err
	}
	c, err := newCookies(s.Random)
	if err != nil {
		return err
	}
	v.mux = newDemux(conn, v.gate, c, v.open)
	v.wg.Go(func() {
		<-ctx.Done()
		for _, s := range v.all() {
			s.close() // while the socket still takes the goodbye
		}
		v.mux.close()
	})
	v.wg.Go(v.tick)
	s.mux.Store(v.mux)
	defer s.mux.Store(nil)
	err = v.mux.run()
	stopped := ctx.Err() != nil
	cancel()
	v.wg.Wait()
	if stopped && errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", conn.LocalAddr(), err)
}

func (s *Server) identity() ibc.Identity {
	key, _ := s.Self.Present()
	return key.Identity()
}

// serving is a Server at work.
type serving struct {
	*Server
	ctx    context.Context // the life of Serve
	limits Limits
	key    handshakeKey
	gate   *gate
	mux    *demux
	begun  time.Time
	wg     sync.WaitGroup
	opened chan struct{} // wakes tick, capacity 1

	mu       sync.Mutex
	sessions map[*session]struct{}
}

// tickInterval is how often idle sessions are looked for.
const tickInterval = 5 * time.Second

// tick is the one periodic runner of all sessions. It sleeps while there are
// none: an idle device does not wake.
func (v *serving) tick() {
	for {
		sessions := v.all()
		for _, s := range sessions {
			s.cc.CheckExpirations(time.Now()) // the library's own clock
			s.expire()
		}
		var next <-chan time.Time
		if len(sessions) > 0 {
			next = time.After(tickInterval)
		}
		select {
		case <-v.ctx.Done():
			return
		case <-v.opened:
		case <-next:
		}
	}
}

func (v *serving) all() []*session {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := make([]*session, 0, len(v.sessions))
	for s := range v.sessions {
		out = append(out, s)
	}
	return out
}

// admit makes an authenticated peer's session one of ours: its (epoch,
// generation) becomes the floor, durably, before it is served, and sessions of
// those who are accepted no more end.
func (v *serving) admit(s *session) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	order, ok := v.order(s.peer)
	if !ok || order < 0 || s.void() {
		return fmt.Errorf("%w: %s has been replaced meanwhile", ErrBinding, s.peer)
	}
	if order > 0 {
		if err := v.Peers.Raise(s.peer, s.root); err != nil {
			return fmt.Errorf("raise the floor to %s: %w", s.peer, err)
		}
	}
	v.Self.Settle(s.own, s.peer)
	count := 1
	for other := range v.sessions {
		if other.stranger {
			continue
		}
		count++
		if order, ok := v.order(other.peer); !ok || order < 0 {
			v.Log.Info("closing the session of a replaced CLM key", "peer", other.peer, "by", s.peer)
			other.close()
		}
	}
	if count > v.limits.Sessions {
		v.victim().close()
	}
	v.enter(s)
	return nil
}

// enter makes a session one of ours. The caller holds mu.
func (v *serving) enter(s *session) {
	v.sessions[s] = struct{}{}
	select {
	case v.opened <- struct{}{}:
	default:
	}
}

// order compares a peer with the floor of its name; ok is false if it has none.
func (v *serving) order(peer ibc.Identity) (order int, ok bool) {
	epoch, generation, ok := v.Peers.Floor(peer.Name)
	return ibc.CompareVersion(peer.Epoch, peer.Generation, epoch, generation), ok
}

// victim is the session that gives way to a new one: of the CLM that has the
// most, the one that has been idle longest, and a busy one last.
func (v *serving) victim() *session {
	count := map[string]int{}
	sessions := slices.DeleteFunc(slices.Collect(maps.Keys(v.sessions)), func(s *session) bool { return s.stranger })
	for _, s := range sessions {
		count[s.peer.Name]++
	}
	return slices.MinFunc(sessions, func(a, b *session) int {
		return cmp.Or(
			cmp.Compare(count[b.peer.Name], count[a.peer.Name]),
			cmp.Compare(a.busy.Load(), b.busy.Load()),
			cmp.Compare(a.seen.Load(), b.seen.Load()),
		)
	})
}

// uptime is a clock that no setting of the time moves.
func (v *serving) uptime() time.Duration { return v.Now().Sub(v.begun) }

func (v *serving) dismiss(s *session) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.sessions, s)
}
