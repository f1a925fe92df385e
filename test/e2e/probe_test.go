package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/store"
	"github.com/edgeclm/edgeclm/internal/tlsprobe"
)

// tlsServer is what a device serves TLS with. Its reload hook says that all is
// well, whether it takes the new pair or not.
type tlsServer struct {
	pair    atomic.Pointer[tls.Certificate]
	ignores atomic.Bool
	reloads atomic.Int32
}

func (s *tlsServer) reload(_ context.Context, active agent.Paths) error {
	s.reloads.Add(1)
	if s.ignores.Load() {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(active.Chain, active.Key)
	if err != nil {
		return err
	}
	s.pair.Store(&pair)
	return nil
}

// serve answers handshakes and returns the port as an endpoint.
func (s *tlsServer) serve(t *testing.T) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		MinVersion: tls.VersionTLS12, ClientAuth: tls.RequireAnyClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if pair := s.pair.Load(); pair != nil {
				return pair, nil
			}
			return nil, errors.New("no certificate yet")
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				_ = conn.SetDeadline(time.Now().Add(time.Minute))
				_, _ = conn.Read(make([]byte, 1)) // the handshake, and the client's end
			}()
		}
	}()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return ":" + port
}

func (p *plant) serving(t *testing.T) (*node, *tlsServer) {
	t.Helper()
	p.runner.Prober = &tlsprobe.Prober{Within: time.Minute, Attempt: time.Minute, Pause: time.Millisecond, Tries: 3}
	n, server := p.provision("plc-1", fleet.ECDSAP256), &tlsServer{}
	n.reload, n.endpoint = server.reload, server.serve(t)
	n.serve()
	p.commission(map[string]string{n.name: n.addr})
	return n, server
}

func (p *plant) kinds(n *node, kind enrol.EventKind) []string {
	p.t.Helper()
	var out []string
	for _, e := range value[store.History](p.t)(p.store.History(context.Background(), n.name, 0)).Events {
		if e.Kind == kind {
			out = append(out, e.Message)
		}
	}
	return out
}

// TestServed: a certificate is confirmed once a handshake has shown it. A
// server whose reload "succeeds" without taking it makes the device go back.
func TestServed(t *testing.T) {
	p := newPlant(t)
	n, server := p.serving(t)
	first := p.renewed(n)
	if served := p.kinds(n, enrol.EventServed); len(served) != 1 || !strings.Contains(served[0], n.endpoint) {
		t.Errorf("events %q", served)
	}
	server.ignores.Store(true)
	result := p.run(n.name)
	var f *enrol.Fault
	if result.Outcome != enrol.OutcomeFailed || !errors.As(result.Err, &f) || f.Class != enrol.ClassNotServed || !strings.Contains(f.Error(), first.Serial) {
		t.Fatalf("%s: %v", result.Outcome, result.Err)
	}
	if result.Enrolment.State != enrol.Verified {
		t.Errorf("enrolment in state %s", result.Enrolment.State)
	}
	if d := value[fleet.Device](t)(p.store.Device(context.Background(), n.name)); d.Certificate.SHA256 != first.SHA256 {
		t.Errorf("on record %s, want %s", d.Certificate.Serial, first.Serial)
	}
	n.wantActive(t, first)
	if n := server.reloads.Load(); n != 3 {
		t.Errorf("%d reloads, want that of each certificate and that of the first again", n)
	}
	server.ignores.Store(false)
	p.renewed(n)
	history := value[store.History](t)(p.store.History(context.Background(), n.name, 0))
	if len(history.Certificates) != 2 {
		t.Errorf("%d certificates for two enrolments", len(history.Certificates))
	}
}

func (n *node) wantActive(t *testing.T, want fleet.Certificate) {
	t.Helper()
	report := value[agent.Report](t)(agent.Inspect(n.dir, n.clock.now()))
	if report.Active == nil || enrol.Describe(report.Active).SHA256 != want.SHA256 || !report.KeyFits {
		t.Errorf("active on the device: %+v", report.Active)
	}
}

// probing lets something happen while the CLM probes.
type probing func(context.Context) error

func (f probing) Probe(ctx context.Context, _ enrol.Probe) error { return f(ctx) }

// TestWentBackByItself: the device restarts three times before the CLM can
// confirm, so it goes back. The CLM says so, and finds out what the device has
// before it activates the certificate again.
func TestWentBackByItself(t *testing.T) {
	p := newPlant(t)
	n, _ := p.serving(t)
	first := p.renewed(n)
	p.runner.Prober = probing(func(context.Context) error {
		for range 3 {
			n.restartOn(nil)
		}
		return nil
	})
	result := p.run(n.name)
	var f *enrol.Fault
	if !errors.As(result.Err, &f) || f.Class != enrol.ClassUnconfirmed || result.Enrolment.State != enrol.Verified {
		t.Fatalf("%s: %v", result.Outcome, result.Err)
	}
	if events := p.kinds(n, enrol.EventRolledBack); len(events) != 1 {
		t.Errorf("events %q", events)
	}
	n.wantActive(t, first)
	p.runner.Prober = nil
	p.renewed(n)
}

// TestWentBackByHand: somebody at the device has it go back from a certificate
// that was confirmed. At the next contact the inventory follows.
func TestWentBackByHand(t *testing.T) {
	p := newPlant(t)
	n, _ := p.serving(t)
	first := p.renewed(n)
	second := p.renewed(n)
	if _, err := n.agent.RollbackByHand(context.Background()); err != nil {
		t.Fatal(err)
	}
	p.runner.CA = &hookedCA{CA: p.scep, before: func() {
		// The store has not been told yet; what the run knows, it says at its end.
		n.wantActive(t, first)
	}}
	third := p.renewed(n)
	events := p.kinds(n, enrol.EventRolledBack)
	if len(events) != 1 || !strings.Contains(events[0], first.Serial) || !strings.Contains(events[0], second.Serial) || !strings.Contains(events[0], "by hand") {
		t.Errorf("events %q", events)
	}
	if third.SHA256 == second.SHA256 {
		t.Error("the certificate that was given up came back")
	}
	// At the CLM an operator wishes the same, and the device has gone back again.
	if _, err := n.agent.RollbackByHand(context.Background()); err != nil {
		t.Fatal(err)
	}
	result, err := p.runner.Rollback(context.Background(), n.name)
	if err != nil || !result.Already || result.Device.Certificate.SHA256 != first.SHA256 {
		t.Errorf("%+v, %v", result, err)
	}
	p.renewed(n)
}
