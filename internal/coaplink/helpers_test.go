package coaplink

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// pkg is a PKG of one epoch.
type pkg struct{ *ibc.MasterSecret }

func newPKG(t testing.TB, epoch uint32) pkg {
	t.Helper()
	m, err := ibc.Setup(rand.Reader, epoch)
	if err != nil {
		t.Fatal(err)
	}
	return pkg{m}
}

func (p pkg) key(t testing.TB, role ibc.Role, name string, generation uint32) *ibc.PrivateKey {
	t.Helper()
	id, err := ibc.NewIdentity(role, name, p.Params().Epoch(), generation)
	if err != nil {
		t.Fatal(err)
	}
	k, err := p.Extract(id)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (p pkg) credential(t testing.TB, name string, generation uint32) *Credential {
	t.Helper()
	c, err := NewCredential(p.key(t, ibc.RoleCLM, name, generation), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (p pkg) dialer(t testing.TB, name string, generation uint32) *Dialer {
	t.Helper()
	return &Dialer{Credential: p.credential(t, name, generation), Params: []*ibc.Params{p.Params()}, Random: rand.Reader}
}

// memoryPeers is a PeerStore that survives a restart of the server, not of the
// process.
type memoryPeers struct {
	mu         sync.Mutex
	floors     map[string][2]uint32
	certs      map[[32]byte]ibc.Identity
	raised     []ibc.Identity
	remembered int
	raiseErr   error
}

func newPeers(names ...string) *memoryPeers {
	p := &memoryPeers{floors: map[string][2]uint32{}, certs: map[[32]byte]ibc.Identity{}}
	for _, n := range names {
		p.floors[n] = [2]uint32{1, 1}
	}
	return p
}

func (p *memoryPeers) Floor(name string) (uint32, uint32, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.floors[name]
	return f[0], f[1], ok
}

func (p *memoryPeers) Raise(id ibc.Identity, _ uint32) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.raiseErr != nil {
		return p.raiseErr
	}
	p.floors[id.Name] = [2]uint32{id.Epoch, id.Generation}
	p.raised = append(p.raised, id)
	return nil
}

// raises returns the identities that became a floor, in order.
func (p *memoryPeers) raises() []ibc.Identity {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.raised)
}

func (p *memoryPeers) Cached(sum [32]byte) (ibc.Identity, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	id, ok := p.certs[sum]
	return id, ok
}

func (p *memoryPeers) Remember(sum [32]byte, id ibc.Identity) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.certs[sum] = id
	p.remembered++
	return nil
}

func (p *memoryPeers) pairings() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.remembered
}

// fakeServices records what it is asked; nil functions answer with the fields.
type fakeServices struct {
	mu     sync.Mutex
	calls  []string
	peers  []ibc.Identity
	csrReq enrol.CSRRequest
	verReq enrol.VerifyRequest
	within time.Duration

	csr      []byte
	response enrol.VerifyResponse
	status   enrol.DeviceStatus
	err      error
	hook     func(call string)
	ctx      context.Context

	boats  []boat
	aboard func() error // what Lifeboat does; nil: nothing
}

// boat is a lifeboat that came.
type boat struct {
	from string
	data []byte
}

// setHook sets what happens in each call, also while the device serves.
func (f *fakeServices) setHook(hook func(call string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
}

func (f *fakeServices) note(call string, peer ibc.Identity) error {
	f.mu.Lock()
	f.calls = append(f.calls, call)
	f.peers = append(f.peers, peer)
	hook, err := f.hook, f.err
	f.mu.Unlock()
	if hook != nil {
		hook(call)
	}
	return err
}

func (f *fakeServices) count(call string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.calls {
		if c == call {
			n++
		}
	}
	return n
}

// fail makes every later call fail.
func (f *fakeServices) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

// ended reports whether the context of the last call to Status has ended.
func (f *fakeServices) ended() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ctx.Err() != nil
}

func (f *fakeServices) got() (enrol.CSRRequest, enrol.VerifyRequest, time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.csrReq, f.verReq, f.within
}

func (f *fakeServices) CSR(_ context.Context, peer ibc.Identity, req enrol.CSRRequest) ([]byte, error) {
	err := f.note("csr", peer)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.csrReq = req
	return f.csr, err
}

func (f *fakeServices) Verify(_ context.Context, peer ibc.Identity, req enrol.VerifyRequest) (enrol.VerifyResponse, error) {
	err := f.note("verify", peer)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.verReq = req
	return f.response, err
}

func (f *fakeServices) Activate(_ context.Context, peer ibc.Identity, _ enrol.ID, _ [32]byte, within time.Duration) error {
	err := f.note("activate", peer)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.within = within
	return err
}

func (f *fakeServices) Confirm(_ context.Context, peer ibc.Identity, _ enrol.ID, _ [32]byte) error {
	return f.note("confirm", peer)
}

func (f *fakeServices) Rollback(_ context.Context, peer ibc.Identity, _ enrol.ID, _ [32]byte) error {
	return f.note("rollback", peer)
}

func (f *fakeServices) Bundle(_ context.Context, peer ibc.Identity, _ []byte) error {
	return f.note("bundle", peer)
}

func (f *fakeServices) Lifeboat(_ context.Context, from string, data []byte) error {
	f.mu.Lock()
	f.boats = append(f.boats, boat{from, data})
	then := f.aboard
	f.mu.Unlock()
	if then != nil {
		return then()
	}
	return nil
}

func (f *fakeServices) Anchors(_ context.Context, peer ibc.Identity, change enrol.AnchorChange) error {
	if change.CrossSigned != nil {
		return f.note("cross-signed root", peer)
	}
	return f.note("anchors", peer)
}

func (f *fakeServices) Status(ctx context.Context, peer ibc.Identity) (enrol.DeviceStatus, error) {
	f.mu.Lock()
	f.ctx = ctx
	f.mu.Unlock()
	err := f.note("status", peer)
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status, err
}

// generous limits, for tests that are not about limits.
func generous() Limits {
	return Limits{SourceBurst: 1 << 20, PairBurst: 1 << 20}
}

// fixedSelf is a device that never changes.
type fixedSelf struct{ key *ibc.PrivateKey }

func (s fixedSelf) Present() (*ibc.PrivateKey, []*ibc.Params) {
	return s.key, []*ibc.Params{s.key.Params()}
}

func (fixedSelf) Root() uint32 { return 0 }

func (s fixedSelf) Settle(ibc.Identity, ibc.Identity) {}

func newServer(key *ibc.PrivateKey, peers PeerStore, services Services) *Server {
	return &Server{
		Self: fixedSelf{key}, Peers: peers, Services: services,
		Random: rand.Reader, Now: time.Now, Log: slog.New(slog.DiscardHandler), Limits: generous(),
	}
}

// serve starts a server on a free port and returns its address and a function
// that stops it and waits.
func serve(t testing.TB, s *Server) (addr string, stop func()) {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	addr = conn.LocalAddr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, conn) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("serve: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return addr, stop
}

func deviceAt(key *ibc.PrivateKey, addr string) fleet.Device {
	return fleet.Device{Name: key.Identity().Name, Identity: key.Identity(), Address: addr}
}

func dial(t testing.TB, d *Dialer, device fleet.Device) enrol.Device {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	link, err := d.Dial(ctx, device)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = link.Close() })
	return link
}
