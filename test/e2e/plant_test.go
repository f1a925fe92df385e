package e2e

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/labca"
	"github.com/edgeclm/edgeclm/internal/scep"
	"github.com/edgeclm/edgeclm/internal/store"
	"github.com/edgeclm/edgeclm/internal/store/sqlite"
)

const (
	challenge = "plant-challenge-7c41"
	clmName   = "clm-1"
)

// clock is a wall clock that can be wrong.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time   { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) set(at time.Time) { c.offset.Store(int64(time.Until(at))) }

// plant is a PKG, a CLM and a CA; devices are added.
type plant struct {
	t      testing.TB
	dir    string
	master *ibc.MasterSecret
	ca     *labca.CA
	scep   *scep.Client
	store  *sqlite.Store
	runner *enrol.Runner
	dialer *coaplink.Dialer

	clmClock, caClock clock
	limits            coaplink.Limits // of the devices
	addresses         []string        // of the CLM, in the bundles
}

func value[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func newPlant(t testing.TB) *plant {
	t.Helper()
	if err := scep.Configure(); err != nil {
		t.Fatal(err)
	}
	p := &plant{t: t, dir: t.TempDir()}
	p.master = value[*ibc.MasterSecret](t)(ibc.Setup(rand.Reader, 1))
	p.ca = value[*labca.CA](t)(labca.Open(filepath.Join(p.dir, "ca"), labca.Options{
		Challenge: []byte(challenge), Now: p.caClock.now, Reissue: true,
	}))
	t.Cleanup(func() { p.ca.Close() })
	server := httptest.NewServer(p.ca.Handler())
	t.Cleanup(server.Close)
	p.scep = p.newSCEP(server.URL + labca.Path)
	p.store = value[*sqlite.Store](t)(sqlite.Open(context.Background(), filepath.Join(p.dir, "inventory.db"), sqlite.Options{}))
	t.Cleanup(func() { p.store.Close() })

	key := p.extract(ibc.RoleCLM, clmName, 1)
	p.dialer = &coaplink.Dialer{
		Credential: value[*coaplink.Credential](t)(coaplink.NewCredential(key, rand.Reader)),
		Params:     []*ibc.Params{p.master.Params()}, Random: rand.Reader,
	}
	p.runner = p.newRunner(p.store, p.dialer, p.scep)
	return p
}

func (p *plant) newSCEP(url string) *scep.Client {
	p.t.Helper()
	info := value[scep.CAInfo](p.t)(scep.Fetch(context.Background(), url, scep.HTTPOptions{}, time.Now))
	authority := value[scep.Authority](p.t)(scep.SelectAnchor(info.Certificates, []*x509.Certificate{p.ca.Root()}, scep.Fingerprint(p.ca.Root())))
	var pinned [][]byte
	for _, c := range authority.Certificates() {
		pinned = append(pinned, c.Raw)
	}
	client := value[*scep.Client](p.t)(scep.New(scep.Config{
		URL: url, Anchor: authority.Anchor.Raw, Certificates: pinned, Capabilities: info.Capabilities,
		RA:        value[scep.RA](p.t)(scep.GenerateRA(rand.Reader, clmName)),
		Challenge: func(context.Context, string) ([]byte, error) { return []byte(challenge), nil },
		HTTP:      scep.HTTPOptions{Timeout: 20 * time.Second}, Now: p.clmClock.now,
	}))
	p.t.Cleanup(client.Close)
	return client
}

func (p *plant) newRunner(s enrol.Store, d enrol.Dialer, ca enrol.CA) *enrol.Runner {
	policy := enrol.DefaultPolicy()
	policy.Floor, policy.RetryFirst = 0, time.Millisecond
	queue, _ := s.(enrol.DeliveryStore)
	return &enrol.Runner{
		Store: s, Deliveries: queue, Health: p.store, Dialer: d, CA: ca, CAName: "lab", Policy: policy,
		Params: func(uint32) (enrol.Verifier, error) { return p.master.Params(), nil },
		Now:    p.clmClock.now, Random: rand.Reader, Log: quiet(),
	}
}

func (p *plant) extract(role ibc.Role, name string, generation uint32) *ibc.PrivateKey {
	p.t.Helper()
	id := value[ibc.Identity](p.t)(ibc.NewIdentity(role, name, p.master.Params().Epoch(), generation))
	return value[*ibc.PrivateKey](p.t)(p.master.Extract(id))
}

// node is a device: its directory, and a server that can be stopped and
// started on the same address.
type node struct {
	p     *plant
	name  string
	dir   string
	addr  string // of the server
	clock clock
	algo  fleet.KeyAlgorithm
	keys  []agent.KeyStore // nil: files
	agent *agent.Agent
	stop  func()
	layer agent.Layer // nil: the operating system's

	reload   agent.Reload // nil: none
	endpoint string       // of TLS; "": none
}

// provision makes a device that is issued, provisioned and commissioned, but
// does not serve.
func (p *plant) provision(name string, algo fleet.KeyAlgorithm) *node {
	p.t.Helper()
	n := &node{p: p, name: name, dir: filepath.Join(p.dir, name), algo: algo, stop: func() {}}
	_, recipient, err := agent.Provisioned(n.dir, nil).Recipient()
	if err != nil {
		p.t.Fatal(err)
	}
	key := p.extract(ibc.RoleDevice, name, 1)
	b := &bundle.Bundle{
		Identity: key.Identity(), Params: key.Params(), Key: key, Names: fleet.DefaultNames(name),
		Peers:     []bundle.Peer{{Name: clmName, Epoch: 1, Generation: 1}},
		Recipient: bundle.Hash(recipient.Hash()), RecoveryHash: bundle.Hash(sha256.Sum256([]byte("recovery"))),
		CLMAddresses: p.addresses,
	}
	if _, err := agent.Provision(n.dir, nil, b); err != nil {
		p.t.Fatal(err)
	}
	return n
}

// commission puts devices into the inventory, under an address each.
func (p *plant) commission(addresses map[string]string) {
	p.t.Helper()
	d := store.Delivery{At: time.Now(), Source: "test"}
	index := uint64(0)
	for name, addr := range addresses {
		index++
		d.Rows = append(d.Rows, store.Row{
			Identity: value[ibc.Identity](p.t)(ibc.NewIdentity(ibc.RoleDevice, name, 1, 1)),
			Address:  addr, Names: fleet.DefaultNames(name), LedgerIndex: index,
		})
	}
	if _, err := p.store.PutDevices(context.Background(), d); err != nil {
		p.t.Fatal(err)
	}
}

// commissionGeneration brings a manifest with a later generation of a device.
func (p *plant) commissionGeneration(n *node, generation uint32) {
	p.t.Helper()
	if _, err := p.store.PutDevices(context.Background(), store.Delivery{At: time.Now(), Source: "test", Rows: []store.Row{{
		Identity: value[ibc.Identity](p.t)(ibc.NewIdentity(ibc.RoleDevice, n.name, 1, generation)),
		Address:  n.addr, Names: fleet.DefaultNames(n.name), LedgerIndex: 1000 + uint64(generation),
	}}}); err != nil {
		p.t.Fatal(err)
	}
}

// open starts the agent, without a server.
func (n *node) open() *agent.Agent {
	n.p.t.Helper()
	n.agent = value[*agent.Agent](n.p.t)(agent.Open(agent.Config{
		Dir: n.dir, Random: rand.Reader, Now: n.clock.now, Log: quiet(), Version: "test", Key: n.algo, KeyStores: n.keys, Layer: n.layer,
		Reload: n.reload, Endpoint: n.endpoint,
	}))
	return n.agent
}

// restartOn ends the server, and starts it again on a file layer; nil is the
// operating system's.
func (n *node) restartOn(layer agent.Layer) {
	n.p.t.Helper()
	n.stop()
	n.layer = layer
	n.serve()
}

// serve starts agent and server; the address stays the same from the first
// time on.
func (n *node) serve() {
	n.p.t.Helper()
	listen := n.addr
	if listen == "" {
		listen = "127.0.0.1:0"
	}
	conn := value[net.PacketConn](n.p.t)(net.ListenPacket("udp", listen))
	n.addr = conn.LocalAddr().String()
	a := n.open()
	server := &coaplink.Server{
		Self: a, Peers: a, Services: a,
		Random: rand.Reader, Now: time.Now, Log: quiet(), Limits: n.p.limits,
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := server.Serve(ctx, conn); err != nil {
			n.p.t.Errorf("serve %s: %v", n.name, err)
		}
	})
	n.stop = sync.OnceFunc(func() {
		cancel()
		done.Wait()
		if err := a.Close(); err != nil {
			n.p.t.Errorf("close %s: %v", n.name, err)
		}
	})
	n.p.t.Cleanup(n.stop)
}

// addDevice is provision, serve and commission.
func (p *plant) addDevice(name string, algo fleet.KeyAlgorithm) *node {
	p.t.Helper()
	n := p.provision(name, algo)
	n.serve()
	p.commission(map[string]string{name: n.addr})
	return n
}

func (p *plant) run(name string) enrol.Result {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return p.runner.Run(ctx, name, true)
}

// renewed runs one enrolment and wants it complete on both sides.
func (p *plant) renewed(n *node) fleet.Certificate {
	p.t.Helper()
	if result := p.run(n.name); result.Outcome != enrol.OutcomeRenewed {
		p.t.Fatalf("%s: %s: %v", n.name, result.Outcome, result.Err)
	}
	return p.checkWhole(n)
}

// checkWhole is the invariant of a finished enrolment.
func (p *plant) checkWhole(n *node) fleet.Certificate {
	p.t.Helper()
	ctx := context.Background()
	history := value[store.History](p.t)(p.store.History(ctx, n.name, 0))
	status := value[enrol.DeviceStatus](p.t)(n.agent.Status(ctx, ibc.Identity{}))
	d := history.Device
	if d.Certificate == nil || status.Active == nil {
		p.t.Fatalf("%s has no active certificate: row %+v, device %+v", n.name, d.Certificate, status.Active)
	}
	if status.Active.SHA256 != d.Certificate.SHA256 {
		p.t.Errorf("%s: active on the device: %x, in the inventory: %x", n.name, status.Active.SHA256[:4], d.Certificate.SHA256[:4])
	}
	if status.Unconfirmed || status.Staged != nil {
		p.t.Errorf("%s: the device is not done: %+v", n.name, status)
	}
	active := 0
	for _, c := range history.Certificates {
		if !c.Active {
			continue
		}
		active++
		leaf := value[*x509.Certificate](p.t)(x509.ParseCertificate(c.DER))
		if err := enrol.CheckReceipt(p.master.Params(), c.Enrolment, leaf, c.Receipt); err != nil {
			p.t.Errorf("%s: %v", n.name, err)
		}
	}
	if active != 1 {
		p.t.Errorf("%s: %d active certificates on record", n.name, active)
	}
	for _, e := range history.Enrolments {
		if !e.State.Final() {
			p.t.Errorf("%s: an enrolment is left in state %s", n.name, e.State)
		}
	}
	return *d.Certificate
}
