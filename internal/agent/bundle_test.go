package agent_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
	"github.com/edgeclm/edgeclm/internal/provision"
)

// nextEpoch is epoch 2 of the PKG of all tests, and the statement that leads
// there.
var nextEpoch = sync.OnceValues(func() (*ibc.MasterSecret, ibc.Succession) {
	master, err := ibc.Setup(rand.Reader, 2)
	if err != nil {
		panic(err)
	}
	step, err := pkg().Succeed(master.Params())
	if err != nil {
		panic(err)
	}
	return master, step
})

// ofEpoch2 is what the PKG issued to plc-1 under its second master secret.
func ofEpoch2(t testing.TB) *bundle.Bundle {
	t.Helper()
	master, step := nextEpoch()
	b := newBundle(t, 1)
	b.Identity.Epoch, b.Params, b.Epochs = 2, master.Params(), []ibc.Succession{step}
	b.Peers = []bundle.Peer{{Name: "clm-1", Epoch: 2, Generation: 1}}
	b.Key = must[*ibc.PrivateKey](t)(master.Extract(b.Identity))
	return b
}

// recipient returns the age recipient of a state directory.
func recipient(t testing.TB, dir string) bundle.Recipient {
	t.Helper()
	_, to, err := agent.Provisioned(dir, nil).Recipient()
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func sealTo(t testing.TB, b *bundle.Bundle, by bundle.Signer, to bundle.Recipient) []byte {
	t.Helper()
	sealed, _, err := bundle.Seal(b, by, to)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func (d *device) deliver(sealed []byte) error {
	return d.agent.Bundle(context.Background(), d.peer, sealed)
}

func (d *device) wantIdentity(epoch, generation uint32) {
	d.t.Helper()
	key, _ := d.agent.Present()
	for _, id := range []ibc.Identity{d.agent.Identity(), d.status().Identity, key.Identity()} {
		if id.Name != "plc-1" || id.Epoch != epoch || id.Generation != generation {
			d.t.Errorf("the device is %s, want e%d.g%d", id, epoch, generation)
		}
	}
}

// wantCLMs checks who is let in: parameters known, and not below the floor.
func (d *device) wantCLMs(accepted bool, clms ...ibc.Identity) {
	d.t.Helper()
	_, known := d.agent.Present()
	for _, id := range clms {
		ok := false
		for _, p := range known {
			ok = ok || p.Epoch() == id.Epoch
		}
		epoch, generation, listed := d.agent.Floor(id.Name)
		ok = ok && listed && ibc.CompareVersion(id.Epoch, id.Generation, epoch, generation) >= 0
		if ok != accepted {
			d.t.Errorf("as %s the device accepts %s: %v", d.agent.Identity(), id, ok)
		}
	}
}

func clmAt(name string, epoch, generation uint32) ibc.Identity {
	return ibc.Identity{Role: ibc.RoleCLM, Name: name, Epoch: epoch, Generation: generation}
}

// TestBundle: a device goes through a later generation and a later epoch, in
// the middle of an enrolment, and across restarts.
func TestBundle(t *testing.T) {
	d := newDevice(t)
	d.enrol(1)
	master, _ := nextEpoch()
	to := recipient(t, d.cfg.Dir)
	csr := d.csr(2)
	second := sealTo(t, newBundle(t, 2), pkg(), to)
	for range 2 {
		d.ok(d.deliver(second))
		d.wantIdentity(1, 2)
		d.restart()
	}
	third := sealTo(t, ofEpoch2(t), master, to)
	d.ok(d.deliver(third))
	d.wantIdentity(2, 1)
	wantRefusal(t, d.deliver(second), enrol.ProblemConflict)

	v := must[enrol.VerifyResponse](t)(d.verify(2, d.ca.issue(t, csr)))
	request := must[*x509.CertificateRequest](t)(enrol.ParseCSR(csr))
	statement := must[[]byte](t)(enrol.StatementMessage(d.agent.Identity(), id(2), sha256.Sum256(request.RawSubjectPublicKeyInfo), v.Certificate))
	if err := master.Params().Verify(d.agent.Identity(), statement, v.Statement); err != nil {
		t.Errorf("the statement is not by the present identity: %v", err)
	}
	d.ok(d.activate(2, v.Certificate, 0))

	old, renewed := clmAt("clm-1", 1, 1), clmAt("clm-1", 2, 1)
	for range 2 {
		d.wantCLMs(true, old, renewed, clmAt("clm-2", 1, 3))
		d.agent.Settle(d.agent.Identity(), old) // not under the new bundle
		d.restart()
	}
	d.agent.Settle(d.agent.Identity(), renewed)
	for range 2 {
		d.wantCLMs(true, renewed)
		d.wantCLMs(false, old, clmAt("clm-1", 1, 9), clmAt("clm-2", 1, 3))
		d.ok(d.deliver(third))
		d.wantIdentity(2, 1)
		d.restart()
	}
	d.wantActive(v.Certificate)
}

// TestAttackBundle: what an authenticated but dishonest CLM may bring. Each is
// refused for its own reason, and changes nothing on the device.
func TestAttackBundle(t *testing.T) {
	d := newDevice(t)
	master, step := nextEpoch()
	own := recipient(t, d.cfg.Dir)
	stranger := must[*ibc.MasterSecret](t)(ibc.Setup(rand.Reader, 1))
	strangerLater := must[*ibc.MasterSecret](t)(ibc.Setup(rand.Reader, 2))
	d.ok(d.deliver(sealTo(t, newBundle(t, 3), pkg(), own)))
	last := newBundle(t, 3)
	pass, err := bundle.PassphraseRecipient([]byte("1234"), [32]byte{9}, 4)
	d.ok(err)
	later := func(change func(*bundle.Bundle)) *bundle.Bundle {
		b := newBundle(t, 4)
		change(b)
		return b
	}
	by := func(m *ibc.MasterSecret, b *bundle.Bundle) []byte {
		b.Params = m.Params()
		b.Identity.Epoch = m.Params().Epoch()
		b.Key = must[*ibc.PrivateKey](t)(m.Extract(b.Identity))
		return sealTo(t, b, m, own)
	}
	for _, tt := range []struct {
		name    string
		sealed  []byte
		problem enrol.Problem
		says    string
	}{
		{"an earlier generation", sealTo(t, newBundle(t, 2), pkg(), own), enrol.ProblemConflict, "not later than the present identity"},
		{"the same generation with another peer", sealTo(t, func() *bundle.Bundle { b := newBundle(t, 3); b.Peers[0].Name = "clm-9"; return b }(), pkg(), own),
			enrol.ProblemConflict, "says something else"},
		{"another recipient's", sealTo(t, newBundle(t, 4), pkg(), recipient(t, filepath.Join(t.TempDir(), "other"))), enrol.ProblemForbidden, "another recipient"},
		{"one for a passphrase", sealTo(t, newBundle(t, 4), pkg(), pass), enrol.ProblemForbidden, "passphrase"},
		{"another device's", by(pkg(), later(func(b *bundle.Bundle) { b.Identity.Name = "plc-2" })), enrol.ProblemForbidden, "somebody else"},
		{"a CLM's", by(pkg(), later(func(b *bundle.Bundle) { b.Identity.Role, b.Peers, b.Names = ibc.RoleCLM, nil, nil })), enrol.ProblemForbidden, "somebody else"},
		{"another PKG's", by(stranger, later(func(*bundle.Bundle) {})), enrol.ProblemForbidden, "another PKG"},
		{"another PKG's later epoch with our statement", by(strangerLater, later(func(b *bundle.Bundle) { b.Epochs = []ibc.Succession{step} })), enrol.ProblemForbidden, "another PKG"},
		{"a later epoch without statement", by(master, later(func(*bundle.Bundle) {})), enrol.ProblemForbidden, "no epoch statement"},
		{"a later epoch with a borrowed statement", by(master, later(func(b *bundle.Bundle) {
			b.Epochs = []ibc.Succession{{Params: master.Params(), Statement: must[[]byte](t)(stranger.Sign(ibc.KindEpoch, []byte("x")))}}
		})), enrol.ProblemForbidden, "signature does not verify"},
		{"another recovery key", by(pkg(), later(func(b *bundle.Bundle) { b.RecoveryHash = bundle.Hash{9} })), enrol.ProblemForbidden, "another recovery key"},
		{"one that the PKG did not sign", sealTo(t, newBundle(t, 4), stranger, own), enrol.ProblemUnverified, "not a bundle statement"},
		{"garbage", []byte("age-encryption.org/v1\n"), enrol.ProblemBadRequest, "age file"},
		{"nothing", nil, enrol.ProblemBadRequest, "age file"},
		{"a truncated one", sealTo(t, newBundle(t, 4), pkg(), own)[:3000], enrol.ProblemBadRequest, "damaged"},
	} {
		before := must[[]byte](t)(os.ReadFile(filepath.Join(d.cfg.Dir, provision.IdentityFile)))
		refusal := wantRefusal(t, d.deliver(tt.sealed), tt.problem)
		if !strings.Contains(refusal.Detail, tt.says) {
			t.Errorf("%s: %s", tt.name, refusal.Detail)
		}
		after := must[[]byte](t)(os.ReadFile(filepath.Join(d.cfg.Dir, provision.IdentityFile)))
		if !bytes.Equal(before, after) {
			t.Errorf("%s: the identity file changed", tt.name)
		}
		d.wantIdentity(1, 3)
	}
	d.ok(d.deliver(sealTo(t, last, pkg(), own)))
	d.wantIdentity(1, 3)
}

// TestBundleCut: the power fails at each operation of taking a bundle of a
// later epoch. The device starts as its old or its new identity, and lets in
// both the CLM that has the old key alone and, if it knows of the new epoch,
// the one that has the new key. The repeated delivery ends it.
func TestBundleCut(t *testing.T) {
	master, _ := nextEpoch()
	prepared := newDevice(t, inMemory(t))
	to := recipient(t, prepared.cfg.Dir)
	sealed := sealTo(t, ofEpoch2(t), master, to)
	prepared.stop()
	defer prepared.start()
	old, renewed := clmAt("clm-1", 1, 1), clmAt("clm-1", 2, 1)
	for _, mode := range []keyfiletest.Mode{keyfiletest.Kill, keyfiletest.PowerLoss} {
		outcomes := map[uint32]bool{}
		for n := 1; ; n++ {
			d := &device{t: t, ca: prepared.ca, peer: prepared.peer, cfg: prepared.cfg}
			d.cfg.Dir = filepath.Join(memoryDir(t), "agent")
			copyTree(t, prepared.cfg.Dir, d.cfg.Dir)
			layer := keyfiletest.New(n, mode)
			d.cfg.Layer = layer
			d.start()
			if err := d.deliver(sealed); err == nil != !layer.Cut() {
				t.Fatalf("cut at %d: %v", n, err)
			}
			if !layer.Cut() {
				d.stop()
				break
			}
			d.wantIdentity(1, 1) // a device that could not store it is not it
			d.cfg.Layer = keyfiletest.New(0, mode)
			d.restart()
			epoch := d.agent.Identity().Epoch
			outcomes[epoch] = true
			d.wantCLMs(true, old)
			d.wantCLMs(epoch == 2, renewed)
			d.ok(d.deliver(sealed))
			d.wantIdentity(2, 1)
			d.wantCLMs(true, old, renewed)
			d.stop()
		}
		if !outcomes[1] || mode == keyfiletest.Kill && !outcomes[2] {
			t.Errorf("mode %d: outcomes %v", mode, outcomes)
		}
	}
}

// flakyLayer fails once: at the n-th time that something is created, renamed or
// synced in a directory.
type flakyLayer struct {
	agent.OS
	left int
}

func (l *flakyLayer) fails() bool {
	l.left--
	return l.left == 0
}

func (l *flakyLayer) Create(path string, perm os.FileMode) (keyfile.File, error) {
	if l.fails() {
		return nil, errBadDisk
	}
	return l.OS.Create(path, perm)
}

func (l *flakyLayer) Rename(from, to string, replace bool) error {
	if l.fails() {
		return errBadDisk
	}
	return l.OS.Rename(from, to, replace)
}

func (l *flakyLayer) SyncDir(path string) error {
	if l.fails() {
		return errBadDisk
	}
	return l.OS.SyncDir(path)
}

var errBadDisk = errors.New("bad disk")

// TestBundleOnBadDisk: a write fails, but the device runs on. The repetition
// finds the present identity and stores the new one, whatever reached the disk.
// That a CLM was seen counts at once even if it cannot be stored.
func TestBundleOnBadDisk(t *testing.T) {
	master, _ := nextEpoch()
	for n := 1; n <= 3; n++ {
		d := newDevice(t)
		d.stop()
		sealed := sealTo(t, ofEpoch2(t), master, recipient(t, d.cfg.Dir))
		layer := &flakyLayer{}
		d.cfg.Layer = layer
		d.start()
		layer.left = n
		if err := d.deliver(sealed); err == nil {
			t.Fatalf("operation %d did not fail", n)
		}
		d.wantIdentity(1, 1)
		d.ok(d.deliver(sealed))
		d.wantIdentity(2, 1)
		layer.left = 1
		d.agent.Settle(d.agent.Identity(), clmAt("clm-1", 2, 1))
		d.wantCLMs(false, clmAt("clm-1", 1, 1))
		d.restart()
		d.wantCLMs(true, clmAt("clm-1", 1, 1), clmAt("clm-1", 2, 1))
		d.agent.Settle(d.agent.Identity(), clmAt("clm-1", 2, 1))
		d.restart()
		d.wantIdentity(2, 1)
		d.wantCLMs(false, clmAt("clm-1", 1, 1))
	}
}

// TestTrustedSources: the addresses of a later bundle count at once.
func TestTrustedSources(t *testing.T) {
	d := newDevice(t)
	b := newBundle(t, 2)
	b.CLMAddresses = []string{"192.0.2.1:5684", "[2001:db8::1]:1", "[::ffff:192.0.2.2]:1", "clm.plant:5684"}
	own := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.2")}
	for _, a := range own {
		if d.agent.Trusted(a) {
			t.Errorf("%s is trusted before the bundle", a)
		}
	}
	d.ok(d.deliver(sealTo(t, b, pkg(), recipient(t, d.cfg.Dir))))
	for range 2 {
		for _, a := range own {
			if !d.agent.Trusted(a) {
				t.Errorf("%s is not trusted", a)
			}
		}
		if d.agent.Trusted(netip.MustParseAddr("192.0.2.3")) {
			t.Error("a stranger is trusted")
		}
		d.restart()
	}
}

// TestBundleWhileHandshakesEnd: bundles come while handshakes finish. No bundle
// is lost to what a handshake stores.
func TestBundleWhileHandshakesEnd(t *testing.T) {
	d := newDevice(t, inMemory(t))
	to := recipient(t, d.cfg.Dir)
	var sealed [][]byte
	for generation := uint32(2); generation <= 12; generation++ {
		sealed = append(sealed, sealTo(t, newBundle(t, generation), pkg(), to))
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				d.agent.Settle(d.agent.Identity(), d.peer)
			}
		}
	})
	for i, s := range sealed {
		d.ok(d.deliver(s))
		d.wantIdentity(1, uint32(i)+2)
	}
	close(done)
	wg.Wait()
	d.agent.Settle(d.agent.Identity(), d.peer)
	d.restart()
	d.wantIdentity(1, 12)
	if e, err := agent.Provisioned(d.cfg.Dir, nil).Load(); err != nil || len(e.Predecessors) > 0 {
		t.Errorf("%v, %v", e, err)
	}
}
