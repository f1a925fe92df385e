package agent_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"math"
	"path/filepath"
	"testing"

	"github.com/cloudflare/circl/sign/slhdsa"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
	"github.com/edgeclm/edgeclm/internal/lifeboat"
)

// root is a PKG with its recovery key.
type root struct {
	master   *ibc.MasterSecret
	key      *slhdsa.PrivateKey
	recovery bundle.Hash
}

func newRoot(t testing.TB) root {
	t.Helper()
	pub, key, err := slhdsa.GenerateKey(rand.Reader, slhdsa.SHA2_128f)
	if err != nil {
		t.Fatal(err)
	}
	raw := must[[]byte](t)(pub.MarshalBinary())
	hash := must[[32]byte](t)(lifeboat.KeyHash(slhdsa.ID.String(key.ID), raw))
	return root{must[*ibc.MasterSecret](t)(ibc.Setup(rand.Reader, 1)), &key, hash}
}

// issue is what the PKG issues to plc-1.
func (r root) issue(t testing.TB, generation uint32) *bundle.Bundle {
	t.Helper()
	b := newBundle(t, generation)
	b.Params, b.RecoveryHash = r.master.Params(), r.recovery
	b.Key = must[*ibc.PrivateKey](t)(r.master.Extract(b.Identity))
	return b
}

// statement is the lifeboat to another PKG.
func (r root) statement(t testing.TB, serial uint32, to root) []byte {
	t.Helper()
	s := must[*lifeboat.Signed](t)(lifeboat.Sign(rand.Reader, r.key, lifeboat.Statement{Serial: serial, Params: to.master.Params(), Recovery: to.recovery}))
	return must[[]byte](t)(s.Marshal())
}

func newDeviceOf(t testing.TB, r root, change ...func(*agent.Config)) *device {
	t.Helper()
	d := &device{t: t, ca: newAuthority(t, "plant"), peer: clm("clm-1")}
	d.cfg = agent.Config{Dir: filepath.Join(t.TempDir(), "agent"), Version: "test", Now: inJune}
	for _, f := range change {
		f(&d.cfg)
	}
	must[bool](t)(agent.Provision(d.cfg.Dir, d.cfg.Layer, r.issue(t, 1)))
	d.start()
	t.Cleanup(d.stop)
	return d
}

func (d *device) board(data []byte) error {
	return d.agent.Lifeboat(context.Background(), "a test", data)
}

// boat is a lifeboat to r with a bundle of its first generation.
func (d *device) boat(statement []byte, r root) []byte {
	d.t.Helper()
	return append(bytes.Clone(statement), sealTo(d.t, r.issue(d.t, 1), r.master, recipient(d.t, d.cfg.Dir))...)
}

func (d *device) wantRoot(r root) {
	d.t.Helper()
	for range 2 {
		key, known := d.agent.Present()
		if key.Params().ID() != r.master.Params().ID() || len(known) != 1 || !known[0].Equal(r.master.Params()) {
			d.t.Fatalf("the device has parameters %x, and %d accepts", key.Params().ID(), len(known))
		}
		d.restart()
	}
}

// plunder is what a thief of the master secret does to a device: a CLM of the
// highest generation is accepted and has a slot and an anchor statement; then a
// bundle of the highest generation; then one of an epoch of his own, the highest,
// to which he has chained it, with peers, addresses and anchors of his own.
func (d *device) plunder(r root) {
	d.t.Helper()
	ctx := context.Background()
	d.ok(d.agent.Raise(clmAt("clm-1", 1, math.MaxInt32), d.agent.Root()))
	evil := newAuthority(d.t, "evil")
	d.ok(d.agent.Anchors(ctx, clm("clm-2"), enrol.AnchorChange{Statement: statedBy(d.t, r.master, math.MaxInt64, "*", evil.root.Raw)}))
	_, err := d.agent.CSR(ctx, clm("clm-2"), enrol.CSRRequest{Enrolment: id(66), CA: evil.root.Raw, CAHash: sha256.Sum256(evil.root.Raw)})
	d.ok(err)
	to := recipient(d.t, d.cfg.Dir)
	b := r.issue(d.t, math.MaxInt32)
	b.Peers = []bundle.Peer{{Name: "thief", Epoch: 1, Generation: 7}}
	d.ok(d.deliver(sealTo(d.t, b, r.master, to)))
	his := must[*ibc.MasterSecret](d.t)(ibc.Setup(rand.Reader, math.MaxInt32))
	b = r.issue(d.t, math.MaxInt32)
	b.Identity.Epoch, b.Params = math.MaxInt32, his.Params()
	b.Epochs = []ibc.Succession{must[ibc.Succession](d.t)(r.master.Succeed(his.Params()))}
	b.Peers = []bundle.Peer{{Name: "clm-1", Epoch: math.MaxInt32, Generation: math.MaxInt32}}
	b.Anchors, b.CLMAddresses = [][]byte{evil.root.Raw}, []string{"203.0.113.66:5684"}
	b.Key = must[*ibc.PrivateKey](d.t)(his.Extract(b.Identity))
	d.ok(d.deliver(sealTo(d.t, b, his, to)))
	d.agent.Settle(d.agent.Identity(), clmAt("clm-1", math.MaxInt32, math.MaxInt32))
	d.ok(d.agent.Raise(clmAt("clm-1", math.MaxInt32, math.MaxInt32), d.agent.Root()))
}

// TestLifeboat: the master secret was stolen and the thief has done his worst.
// The lifeboat gives the device another root, and nothing of the old one is left.
func TestLifeboat(t *testing.T) {
	old, next := newRoot(t), newRoot(t)
	d := newDeviceOf(t, old)
	d.enrol(1)
	d.plunder(old)
	data := d.boat(old.statement(t, 1, next), next)
	for range 2 {
		d.ok(d.board(data))
		d.wantRoot(next)
		d.wantIdentity(1, 1)
	}
	d.wantCLMs(true, clm("clm-1"), clmAt("clm-2", 1, 3))
	d.wantCLMs(false, clmAt("clm-2", 1, 2), clmAt("thief", 1, 7), clmAt("clm-1", math.MaxInt32, math.MaxInt32))
	d.wantAnchors(0)
	s := d.status()
	if s.Active == nil || s.Staged != nil {
		t.Errorf("active %v, staged %v", s.Active, s.Staged)
	}
	// The CLM of the new root enrols at once, and pins its CA.
	d.enrol(2)
	d.wantAnchors(0, d.ca.root.Raw)
	d.ok(d.statement(statedBy(t, next.master, 1, "*", d.ca.root.Raw)))
	to := recipient(t, d.cfg.Dir)
	wantRefusal(t, d.deliver(sealTo(t, old.issue(t, 9), old.master, to)), enrol.ProblemForbidden)
	wantRefusal(t, d.statement(statedBy(t, old.master, 2, "*", d.ca.root.Raw)), enrol.ProblemForbidden)
	d.ok(d.deliver(sealTo(t, next.issue(t, 2), next.master, to)))
	d.wantIdentity(1, 2)

	// And again one day, with the recovery key that the first lifeboat named.
	third := newRoot(t)
	wantRefusal(t, d.board(d.boat(old.statement(t, 2, third), third)), enrol.ProblemForbidden)
	d.ok(d.board(d.boat(next.statement(t, 2, third), third)))
	d.wantRoot(third)
	d.wantIdentity(1, 1)
}

// The lifeboat that a device has brings it later bundles of that PKG too, also
// of a later epoch; and one that comes late brings it there at once.
func TestLifeboatOfALaterEpoch(t *testing.T) {
	old, next := newRoot(t), newRoot(t)
	second := must[*ibc.MasterSecret](t)(ibc.Setup(rand.Reader, 2))
	b := next.issue(t, 1)
	b.Identity.Epoch, b.Params = 2, second.Params()
	b.Epochs = []ibc.Succession{must[ibc.Succession](t)(next.master.Succeed(second.Params()))}
	b.Peers = []bundle.Peer{{Name: "clm-1", Epoch: 2, Generation: 1}}
	b.Key = must[*ibc.PrivateKey](t)(second.Extract(b.Identity))
	statement := old.statement(t, 1, next)
	for _, first := range []bool{true, false} {
		d := newDeviceOf(t, old)
		if first {
			d.ok(d.board(d.boat(statement, next)))
		}
		d.ok(d.board(append(bytes.Clone(statement), sealTo(t, b, second, recipient(t, d.cfg.Dir))...)))
		d.wantIdentity(2, 1)
		if e, err := agent.Provisioned(d.cfg.Dir, nil).Load(); err != nil || e.Root != bundle.Hash(next.master.Params().ID()) {
			t.Errorf("%v, %v", e, err)
		}
	}
}

// TestAttackLifeboatReplayed: an earlier lifeboat, and one of the same number,
// are signed well by the recovery key (which is the same throughout) and lead
// back to a PKG that was given up since.
func TestAttackLifeboatReplayed(t *testing.T) {
	old, next, third := newRoot(t), newRoot(t), newRoot(t)
	next.key, next.recovery = old.key, old.recovery
	third.key, third.recovery = old.key, old.recovery
	d := newDeviceOf(t, old)
	first, second := d.boat(old.statement(t, 1, next), next), d.boat(old.statement(t, 2, third), third)
	d.ok(d.board(first))
	d.ok(d.board(second))
	for _, replayed := range [][]byte{first, d.boat(old.statement(t, 2, next), next), d.boat(old.statement(t, 1, old), old)} {
		wantRefusal(t, d.board(replayed), enrol.ProblemConflict)
		d.wantRoot(third)
	}
	d.ok(d.board(second))
	d.wantRoot(third)
}

// TestAttackLifeboatWithoutRecoveryKey: the thief has the master secret, and
// signs lifeboats with whatever else he has; he spoils a genuine one; he puts
// bundles of his own behind a genuine statement.
func TestAttackLifeboatWithoutRecoveryKey(t *testing.T) {
	old, next, thief := newRoot(t), newRoot(t), newRoot(t)
	d := newDeviceOf(t, old)
	genuine := old.statement(t, 1, next)
	wantRefusal(t, d.board(d.boat(thief.statement(t, 1, thief), thief)), enrol.ProblemForbidden)

	// The recovery key's public half is known once a lifeboat was seen.
	spoilt := bytes.Clone(genuine)
	spoilt[len(spoilt)-1] ^= 1
	wantRefusal(t, d.board(d.boat(spoilt, next)), enrol.ProblemUnverified)
	at := bytes.Index(genuine, next.recovery[:])
	spoilt = bytes.Clone(genuine)
	copy(spoilt[at:], thief.recovery[:])
	wantRefusal(t, d.board(d.boat(spoilt, thief)), enrol.ProblemUnverified)

	to := recipient(t, d.cfg.Dir)
	behind := func(b *bundle.Bundle, by root) []byte {
		return append(bytes.Clone(genuine), sealTo(t, b, by.master, to)...)
	}
	wantRefusal(t, d.board(behind(old.issue(t, 2), old)), enrol.ProblemForbidden)
	wantRefusal(t, d.board(behind(thief.issue(t, 1), thief)), enrol.ProblemForbidden)
	other := next.issue(t, 1)
	other.Identity.Name = "plc-2"
	other.Key = must[*ibc.PrivateKey](t)(next.master.Extract(other.Identity))
	wantRefusal(t, d.board(behind(other, next)), enrol.ProblemForbidden)
	wantRefusal(t, d.board(append(bytes.Clone(genuine), "age-encryption.org/v1"...)), enrol.ProblemBadRequest)
	wantRefusal(t, d.board(genuine), enrol.ProblemBadRequest)
	stranger, _, err := bundle.GenerateOpener()
	if err != nil {
		t.Fatal(err)
	}
	_, elsewhere, err := bundle.ParseOpener(stranger)
	if err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, d.board(append(bytes.Clone(genuine), sealTo(t, next.issue(t, 1), next.master, elsewhere)...)), enrol.ProblemForbidden)
	d.wantRoot(old)
	d.ok(d.board(d.boat(genuine, next)))
}

// TestAttackLifeboatForAnotherRecoveryKey: the bundle behind a lifeboat names
// another recovery key than the statement: who has the new PKG's master secret
// only must not be able to choose it.
func TestAttackLifeboatForAnotherRecoveryKey(t *testing.T) {
	old, next := newRoot(t), newRoot(t)
	d := newDeviceOf(t, old)
	statement := old.statement(t, 1, next)
	next.recovery = bundle.Hash{1}
	wantRefusal(t, d.board(d.boat(statement, next)), enrol.ProblemForbidden)
	d.wantRoot(old)
}

// TestAttackRaiseOfVoidRoot: the thief's handshake is finishing while the
// lifeboat comes. It must not raise a floor under the new root, where the name is
// the same.
func TestAttackRaiseOfVoidRoot(t *testing.T) {
	old, next := newRoot(t), newRoot(t)
	d := newDeviceOf(t, old)
	before := d.agent.Root()
	d.ok(d.board(d.boat(old.statement(t, 1, next), next)))
	if err := d.agent.Raise(clmAt("clm-1", 1, math.MaxInt32), before); err == nil {
		t.Error("a floor was raised under a void root")
	}
	d.wantCLMs(true, clm("clm-1"))
	d.ok(d.agent.Raise(clmAt("clm-1", 1, 2), d.agent.Root()))
	d.wantCLMs(false, clm("clm-1"))
}

// TestLifeboatIsAtomic: the run is cut at each operation of the acceptance. The
// device then has one root or the other, whole, and takes the lifeboat (again).
func TestLifeboatIsAtomic(t *testing.T) {
	old, next := newRoot(t), newRoot(t)
	statement := old.statement(t, 1, next)
	for _, mode := range []keyfiletest.Mode{keyfiletest.Kill, keyfiletest.PowerLoss} {
		for cut := 1; ; cut++ {
			d := newDeviceOf(t, old, inMemory(t))
			d.ok(d.agent.Raise(clmAt("clm-1", 1, 9), 0))
			_, err := d.agent.CSR(context.Background(), clm("clm-2"), enrol.CSRRequest{Enrolment: id(6), CA: d.ca.root.Raw, CAHash: sha256.Sum256(d.ca.root.Raw)})
			d.ok(err)
			data := d.boat(statement, next)
			whole := d.cfg.Layer
			d.stop()
			layer := keyfiletest.New(0, mode)
			d.cfg.Layer = layer
			d.start()
			d.stop()
			layer = keyfiletest.New(layer.Operations()+cut, mode)
			d.cfg.Layer = layer
			d.start()
			boardErr := d.board(data)
			_ = d.agent.Close()
			d.cfg.Layer = whole
			d.start()

			key, _ := d.agent.Present()
			_, generation, _ := d.agent.Floor("clm-1")
			_, csrErr := d.agent.CSR(context.Background(), clmAt("clm-1", 1, 9), enrol.CSRRequest{Enrolment: id(7), CA: d.ca.root.Raw, CAHash: sha256.Sum256(d.ca.root.Raw)})
			var refusal *enrol.DeviceError
			switch key.Params().ID() {
			case old.master.Params().ID():
				if generation != 9 || !errors.As(csrErr, &refusal) || boardErr == nil {
					t.Fatalf("cut %d: under the old root the floor is %d, a slot free: %v, told %v", cut, generation, csrErr, boardErr)
				}
			default:
				if generation != 1 || csrErr != nil {
					t.Fatalf("cut %d: under the new root the floor is %d, a slot free: %v", cut, generation, csrErr)
				}
			}
			d.ok(d.board(data))
			d.wantRoot(next)
			if !layer.Cut() {
				break
			}
		}
	}
}

func FuzzLifeboat(f *testing.F) {
	old, next := newRoot(f), newRoot(f)
	d := newDeviceOf(f, old, inMemory(f))
	good := d.boat(old.statement(f, 1, next), next)
	f.Add(good[:len(good)-1])
	f.Add([]byte("edgeclm-lifeboat/1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		err := d.board(data)
		var refusal *enrol.DeviceError
		if err != nil && !errors.As(err, &refusal) {
			t.Errorf("%v", err)
		}
		if err == nil && !bytes.Equal(data, good) && d.agent.Root() != 1 {
			t.Errorf("taken: %x", data)
		}
	})
}
