package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/enrol/enroltest"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
	"github.com/edgeclm/edgeclm/internal/store"
	"github.com/edgeclm/edgeclm/internal/store/memstore"
)

// histories is how many times three years are lived through.
var histories = flag.Int("histories", 4, "simulated histories of three years with wrong clocks")

// simClock is the clock of one party, in a simulated time that it may not know.
type simClock struct {
	truth  *time.Time
	offset time.Duration
	frozen *time.Time
}

func (c *simClock) now() time.Time {
	if c.frozen != nil {
		return *c.frozen
	}
	return c.truth.Add(c.offset)
}

// errs are the ways in which a clock is wrong.
func errs() []string {
	return []string{"right", "1970", "2000", "a day behind", "a day ahead", "ten years behind", "ten years ahead", "frozen"}
}

func (c *simClock) set(how string) {
	at := c.now()
	c.frozen, c.offset = nil, 0
	switch how {
	case "1970":
		c.offset = time.Unix(0, 0).Sub(*c.truth)
	case "2000":
		c.offset = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Sub(*c.truth)
	case "a day behind":
		c.offset = -24 * time.Hour
	case "a day ahead":
		c.offset = 24 * time.Hour
	case "ten years behind":
		c.offset = -87660 * time.Hour
	case "ten years ahead":
		c.offset = 87660 * time.Hour
	case "frozen":
		c.frozen = &at
	}
}

// epoch is a simulated world of one CLM, one device and one CA, each with a
// clock of its own.
type epoch struct {
	t                *rapid.T
	truth            time.Time
	clm, device, ca  simClock
	reachable, caUp  bool
	loses            int // the call whose answer is lost, counted from 1; 0: none
	forges           bool
	calls            int
	dir              string
	agent            *agent.Agent
	disk             *memstore.Disk
	store            *memstore.Store
	health           enrol.HealthStore
	runner           *enrol.Runner
	master           *ibc.MasterSecret
	anchor, stranger *x509.Certificate
	key              *ecdsa.PrivateKey // of both CAs
	serial           int64
	bound            time.Time // the latest NotBefore among certificates that the device verified
	renewals         int
}

const (
	simDevice   = "plc-1"
	simLifetime = 90 * 24 * time.Hour
)

func (e *epoch) must(err error) {
	e.t.Helper()
	if err != nil {
		e.t.Fatal(err)
	}
}

// Dial, Identity, Close and the rest are the device, as the CLM reaches it.
func (e *epoch) Dial(context.Context, fleet.Device) (enrol.Device, error) {
	if !e.reachable {
		return nil, enrol.ErrUnreachable
	}
	return simChannel{cutDevice{e.agent, clmIdentity(), &cutter{}}, e}, nil
}

func clmIdentity() ibc.Identity {
	return ibc.Identity{Role: ibc.RoleCLM, Name: clmName, Epoch: 1, Generation: 1}
}

// simChannel is the agent without a network, but for an answer that is lost.
type simChannel struct {
	cutDevice
	e *epoch
}

func (c simChannel) answer(err error) error {
	if c.e.calls++; err == nil && c.e.calls == c.e.loses {
		return fmt.Errorf("%w: the answer was lost", enrol.ErrUnreachable)
	}
	return err
}

func (c simChannel) RequestCSR(ctx context.Context, r enrol.CSRRequest) ([]byte, error) {
	csr, err := c.cutDevice.RequestCSR(ctx, r)
	return csr, c.answer(err)
}

func (c simChannel) VerifyCertificate(ctx context.Context, r enrol.VerifyRequest) (enrol.VerifyResponse, error) {
	if c.e.forges {
		c.e.forge(ctx, c, r)
	}
	v, err := c.cutDevice.VerifyCertificate(ctx, r)
	var refusal *enrol.DeviceError
	if errors.As(err, &refusal) && refusal.Problem == enrol.ProblemUnverified {
		c.e.t.Fatalf("the device refused a certificate: %v", err)
	}
	if err == nil {
		leaf, parseErr := x509.ParseCertificate(r.Certificates[0])
		c.e.must(parseErr)
		if leaf.NotBefore.After(c.e.bound) {
			c.e.bound = leaf.NotBefore
		}
	}
	return v, c.answer(err)
}

// forge is a certificate by a CA that the device does not trust, from a time
// to come: it must not tell the device what time it is.
func (e *epoch) forge(ctx context.Context, c simChannel, r enrol.VerifyRequest) {
	leaf, err := x509.ParseCertificate(r.Certificates[0])
	e.must(err)
	template := *leaf
	template.NotBefore, template.NotAfter = time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2091, 1, 1, 0, 0, 0, 0, time.UTC)
	der, err := x509.CreateCertificate(rand.Reader, &template, e.stranger, leaf.PublicKey, e.key)
	e.must(err)
	r.Certificates = [][]byte{der, e.stranger.Raw}
	if _, err := c.cutDevice.VerifyCertificate(ctx, r); err == nil {
		e.t.Fatal("the device verified a stranger's certificate")
	}
}

func (c simChannel) Activate(ctx context.Context, id enrol.ID, sha [32]byte, within time.Duration) error {
	return c.answer(c.cutDevice.Activate(ctx, id, sha, within))
}

func (c simChannel) Confirm(ctx context.Context, id enrol.ID, sha [32]byte) error {
	return c.answer(c.cutDevice.Confirm(ctx, id, sha))
}

func (c simChannel) Status(ctx context.Context) (enrol.DeviceStatus, error) {
	s, err := c.cutDevice.Status(ctx)
	return s, c.answer(err)
}

// Anchor, Challenge and Submit are the CA.
func (e *epoch) Anchor() []byte                                    { return e.anchor.Raw }
func (e *epoch) Challenge(context.Context, string) ([]byte, error) { return nil, nil }

func (e *epoch) Submit(_ context.Context, s enrol.Submission) (enrol.Answer, error) {
	if !e.caUp {
		return enrol.Answer{}, enrol.ErrCAUnavailable
	}
	csr, err := x509.ParseCertificateRequest(s.CSR)
	e.must(err)
	e.serial++
	now := e.ca.now()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(e.serial), Subject: csr.Subject, DNSNames: csr.DNSNames,
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(simLifetime), KeyUsage: x509.KeyUsageDigitalSignature,
	}, e.anchor, csr.PublicKey, e.key)
	e.must(err)
	return enrol.Answer{Certificates: [][]byte{der}, Date: now}, nil
}

func newEpoch(t *rapid.T, dir string, master *ibc.MasterSecret) *epoch {
	e := &epoch{
		t: t, truth: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), reachable: true, caUp: true,
		dir: dir, disk: memstore.NewDisk(), health: enroltest.NewStore(), master: master, serial: 1,
	}
	e.clm.truth, e.device.truth, e.ca.truth = &e.truth, &e.truth, &e.truth
	var err error
	e.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	e.must(err)
	for i, c := range []**x509.Certificate{&e.anchor, &e.stranger} {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: []string{"CA", "stranger"}[i]}, IsCA: true, BasicConstraintsValid: true,
			NotBefore: e.truth, NotAfter: e.truth.AddDate(20, 0, 0), KeyUsage: x509.KeyUsageCertSign,
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, &e.key.PublicKey, e.key)
		e.must(err)
		*c, err = x509.ParseCertificate(der)
		e.must(err)
	}
	id := ibc.Identity{Role: ibc.RoleDevice, Name: simDevice, Epoch: 1, Generation: 1}
	key, err := master.Extract(id)
	e.must(err)
	_, err = agent.Provision(dir, keyfiletest.New(0, keyfiletest.Kill), &bundle.Bundle{
		Identity: id, Params: master.Params(), Key: key, Names: fleet.DefaultNames(simDevice),
		Peers: []bundle.Peer{{Name: clmName, Epoch: 1, Generation: 1}}, RecoveryHash: bundle.Hash(sha256.Sum256([]byte("recovery"))),
	})
	e.must(err)
	e.boot()
	e.store = e.disk.Open()
	_, err = e.store.PutDevices(context.Background(), store.Delivery{At: e.truth, Rows: []store.Row{{Identity: id, Names: fleet.DefaultNames(simDevice), LedgerIndex: 1}}})
	e.must(err)
	e.restart()
	return e
}

func (e *epoch) boot() {
	if e.agent != nil {
		e.must(e.agent.Close())
	}
	var err error
	e.agent, err = agent.Open(agent.Config{Dir: e.dir, Layer: keyfiletest.New(0, keyfiletest.Kill), Now: e.device.now})
	e.must(err)
}

func (e *epoch) restart() {
	e.runner = &enrol.Runner{
		Store: e.store, Health: e.health, Dialer: e, CA: e, CAName: "lab", Policy: enrol.DefaultPolicy(),
		Params: func(uint32) (enrol.Verifier, error) { return e.master.Params(), nil },
		Now:    e.clm.now, Random: rand.Reader, Log: quiet(),
	}
}

func (e *epoch) row() fleet.Device {
	row, err := e.store.Device(context.Background(), simDevice)
	e.must(err)
	return row
}

// renew is what cron does: it works on the device if there is work.
func (e *epoch) renew() {
	ctx, row, now := context.Background(), e.row(), e.clm.now()
	_, err := e.store.OpenEnrolment(ctx, simDevice)
	if !row.Due(now) && err != nil || e.runner.Policy.Waiting(row, now) {
		return
	}
	e.calls = 0
	result := e.runner.Run(ctx, simDevice, false)
	e.judge(result)
	e.loses, e.forges = 0, false
}

// judge allows what is somebody's absence, and a wait for a clock.
func (e *epoch) judge(result enrol.Result) {
	e.t.Helper()
	var f *enrol.Fault
	switch {
	case result.Outcome == enrol.OutcomeRenewed:
		e.renewals++
		return
	case !errors.As(result.Err, &f):
		e.t.Fatalf("%s: %v", result.Outcome, result.Err)
	}
	switch f.Class {
	case enrol.ClassUnreachable:
		if e.reachable && e.loses == 0 {
			e.t.Fatalf("unreachable: %v", f)
		}
	case enrol.ClassCAUnavail:
		if e.caUp && !errors.Is(f, enrol.ErrNotAsked) {
			e.t.Fatalf("CA unavailable: %v", f)
		}
	case enrol.ClassClock:
		if result.Outcome != enrol.OutcomePending {
			e.t.Fatalf("%s: %v", result.Outcome, f)
		}
	case enrol.ClassUnconfirmed, enrol.ClassSuperseded:
	default:
		if !f.Uncounted {
			e.t.Fatalf("%s by %s: %v", f.Class, f.By, f)
		}
	}
}

// check is what holds at any time.
func (e *epoch) check(_ *rapid.T) {
	e.t.Helper()
	if row := e.row(); row.Attempts != 0 || row.Quarantined {
		e.t.Fatalf("a wrong clock counted against the device: %+v", row)
	}
	if e.bound.IsZero() {
		return
	}
	// The lower bound is the latest NotBefore that was verified, to the second.
	before := e.device
	defer func() { e.device = before }()
	for ahead, want := range map[time.Duration]enrol.ClockState{-time.Second: enrol.ClockBehind, 0: enrol.ClockPlausible} {
		at := e.bound.Add(ahead)
		e.device.frozen = &at
		status, err := e.agent.Status(context.Background(), clmIdentity())
		e.must(err)
		if status.Clock != want {
			e.t.Fatalf("%v from the bound %s the clock is %s", ahead, e.bound, status.Clock)
		}
	}
}

// settle is the end of all trouble: within the renewal window of a certificate
// that may have been issued last, the device has one that is valid.
func (e *epoch) settle() {
	e.t.Helper()
	for _, c := range []*simClock{&e.clm, &e.device, &e.ca} {
		c.set("right")
	}
	e.reachable, e.caUp, e.loses = true, true, 0
	for end := e.truth.Add(simLifetime / 2); e.truth.Before(end); e.truth = e.truth.Add(2 * time.Hour) {
		e.renew()
	}
	e.check(nil)
	row := e.row()
	status, err := e.agent.Status(context.Background(), clmIdentity())
	e.must(err)
	if row.Certificate == nil || status.Active == nil || status.Active.SHA256 != row.Certificate.SHA256 || status.Unconfirmed {
		e.t.Fatalf("on record %+v, on the device %+v", row.Certificate, status)
	}
	if e.truth.Before(row.Certificate.NotBefore) || !e.truth.Before(row.Certificate.NotAfter) {
		e.t.Fatalf("at %s the device has a certificate from %s to %s", e.truth, row.Certificate.NotBefore, row.Certificate.NotAfter)
	}
}

// TestYearsOfWrongClocks lives through three years in which every clock goes
// wrong in every direction, the device reboots (and knows no time then), the
// CLM restarts, answers are lost and the CA is away. Nobody refuses anything
// on time alone, nothing counts against the device, its lower bound follows
// verified certificates and nothing else, and when the trouble is over it has
// a valid certificate.
func TestYearsOfWrongClocks(t *testing.T) {
	master := value[*ibc.MasterSecret](t)(ibc.Setup(rand.Reader, 1))
	lived, renewals := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		if lived++; lived > *histories {
			return
		}
		dir := value[string](t)(os.MkdirTemp(memory(), "edgeclm-years-"))
		defer func() { _ = os.RemoveAll(dir) }()
		e := newEpoch(rt, filepath.Join(dir, "agent"), master)
		defer func() { _ = e.agent.Close() }()
		who := map[string]*simClock{"clm": &e.clm, "device": &e.device, "ca": &e.ca}
		for end := e.truth.AddDate(3, 0, 0); e.truth.Before(end); {
			switch rapid.SampledFrom([]string{"clock", "clock", "clock", "boot", "restart", "away", "ca", "lost", "forged", "calm"}).Draw(rt, "event") {
			case "clock":
				name := rapid.SampledFrom([]string{"clm", "device", "ca"}).Draw(rt, "whose")
				who[name].set(rapid.SampledFrom(errs()).Draw(rt, name+" clock"))
			case "boot":
				e.device.set(rapid.SampledFrom([]string{"1970", "right", "frozen"}).Draw(rt, "after the boot"))
				e.boot()
			case "restart":
				e.restart()
			case "away":
				e.reachable = !e.reachable
			case "ca":
				e.caUp = !e.caUp
			case "lost":
				e.loses = rapid.IntRange(1, 8).Draw(rt, "answer")
			case "forged":
				e.forges = true
			case "calm":
				for _, c := range who {
					c.set("right")
				}
				e.reachable, e.caUp = true, true
			}
			e.renew()
			e.check(rt)
			e.truth = e.truth.Add(time.Duration(rapid.IntRange(1, 20*24).Draw(rt, "hours")) * time.Hour)
			e.renew()
			e.check(rt)
		}
		e.settle()
		renewals += e.renewals
	})
	if t.Failed() {
		return
	}
	t.Logf("%d renewals in %d histories", renewals, *histories)
	if renewals < 5**histories {
		t.Errorf("only %d renewals", renewals)
	}
}

// memory is where files cost little, if there is such a place.
func memory() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return ""
}
