package provision_test

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
	"github.com/edgeclm/edgeclm/internal/provision"
)

func clm(name string, epoch, generation uint32) ibc.Identity {
	return ibc.Identity{Role: ibc.RoleCLM, Name: name, Epoch: epoch, Generation: generation}
}

func floor(name string, epoch, generation uint32) bundle.Peer {
	return bundle.Peer{Name: name, Epoch: epoch, Generation: generation}
}

// plant is a PKG of two epochs.
type plant struct {
	t       testing.TB
	secrets []*ibc.MasterSecret
	chain   []ibc.Succession
}

func newPlant(t testing.TB) *plant {
	t.Helper()
	p := &plant{t: t}
	for epoch := uint32(1); epoch <= 2; epoch++ {
		m, err := ibc.Setup(rand.Reader, epoch)
		if err != nil {
			t.Fatal(err)
		}
		p.secrets = append(p.secrets, m)
	}
	s, err := p.secrets[0].Succeed(p.secrets[1].Params())
	if err != nil {
		t.Fatal(err)
	}
	p.chain = []ibc.Succession{s}
	return p
}

// device is the bundle of plc-1 of an epoch and generation.
func (p *plant) device(epoch, generation uint32, peers ...bundle.Peer) *bundle.Bundle {
	p.t.Helper()
	m := p.secrets[epoch-1]
	id := ibc.Identity{Role: ibc.RoleDevice, Name: "plc-1", Epoch: epoch, Generation: generation}
	key, err := m.Extract(id)
	if err != nil {
		p.t.Fatal(err)
	}
	b := &bundle.Bundle{
		Identity: id, Params: m.Params(), Key: key, Peers: peers, Names: fleet.DefaultNames("plc-1"),
		RecoveryHash: bundle.Hash{2}, Recipient: bundle.Hash{1},
	}
	if epoch > 1 {
		b.Epochs = p.chain
	}
	return b
}

func (p *plant) store() provision.Store {
	p.t.Helper()
	s := provision.Store{Dir: filepath.Join(p.t.TempDir(), "agent"), Role: ibc.RoleDevice}
	if err := keyfile.EnsureDir(s.Dir); err != nil {
		p.t.Fatal(err)
	}
	return s
}

func install(t testing.TB, s provision.Store, b *bundle.Bundle) {
	t.Helper()
	if _, err := s.Install(b); err != nil {
		t.Fatal(err)
	}
}

func load(t testing.TB, s provision.Store) *provision.Endpoint {
	t.Helper()
	e, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// accepts reports whether a device would accept a CLM, as far as the bundles
// say: its parameters are known, and it is not below the floor.
func accepts(e *provision.Endpoint, id ibc.Identity) bool {
	known := false
	for _, p := range e.Known() {
		known = known || p.Epoch() == id.Epoch
	}
	f, ok := e.Floor(id.Name)
	return known && ok && ibc.CompareVersion(id.Epoch, id.Generation, f.Epoch, f.Generation) >= 0
}

func want(t testing.TB, e *provision.Endpoint, when string, yes, no []ibc.Identity) {
	t.Helper()
	for _, id := range yes {
		if !accepts(e, id) {
			t.Errorf("%s: %s is refused", when, id)
		}
	}
	for _, id := range no {
		if accepts(e, id) {
			t.Errorf("%s: %s is accepted", when, id)
		}
	}
}

// Until a CLM was seen under the new bundle, both bundles count; then the new
// one alone, and nothing brings the old one back.
func TestPredecessors(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	s := p.store()
	install(t, s, p.device(1, 1, floor("clm-1", 1, 1), floor("clm-2", 1, 3)))
	first := load(t, s)
	want(t, first, "first", []ibc.Identity{clm("clm-1", 1, 1), clm("clm-2", 1, 3)},
		[]ibc.Identity{clm("clm-2", 1, 2), clm("clm-1", 2, 1), clm("clm-3", 1, 1)})

	install(t, s, p.device(2, 1, floor("clm-1", 2, 2), floor("clm-3", 1, 1)))
	e := load(t, s)
	both := []ibc.Identity{clm("clm-1", 1, 1), clm("clm-2", 1, 3), clm("clm-1", 2, 2), clm("clm-3", 2, 1)}
	// clm-3 is a peer of the new bundle: an old key of its does not count.
	want(t, e, "unseen", both, []ibc.Identity{clm("clm-2", 1, 2), clm("clm-3", 1, 7)})

	own := e.Identity
	for _, id := range []ibc.Identity{
		clm("clm-1", 1, 9), clm("clm-1", 2, 1), clm("clm-2", 2, 1), {Role: ibc.RoleDevice, Name: "clm-1", Epoch: 2, Generation: 2},
	} {
		if e.Settled(own, id) != nil {
			t.Errorf("a handshake of %s counts as one under the new bundle", id)
		}
	}
	if e.Settled(first.Identity, clm("clm-1", 2, 2)) != nil {
		t.Error("a handshake in which the device proved its earlier identity counts")
	}
	settled := e.Settled(own, clm("clm-1", 2, 2))
	if settled == nil {
		t.Fatal("a handshake under the new bundle does not count")
	}
	if err := s.Save(settled); err != nil {
		t.Fatal(err)
	}
	e = load(t, s)
	want(t, e, "settled", []ibc.Identity{clm("clm-1", 2, 2), clm("clm-3", 2, 1)},
		[]ibc.Identity{clm("clm-1", 1, 1), clm("clm-2", 1, 3), clm("clm-1", 2, 1)})
	if e.Settled(own, clm("clm-1", 2, 2)) != nil {
		t.Error("it is settled twice")
	}
	for _, b := range []*bundle.Bundle{p.device(1, 1, floor("clm-1", 1, 1)), p.device(1, 9, floor("clm-1", 1, 1))} {
		if _, err := s.Install(b); !errors.Is(err, provision.ErrNotLater) {
			t.Errorf("%s after epoch 2: %v", b.Identity, err)
		}
	}
}

// A bundle whose floor is lower than an earlier one's does not lower it.
func TestFloorsOnlyRise(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	s := p.store()
	install(t, s, p.device(1, 1, floor("clm-1", 1, 5), floor("clm-2", 1, 4)))
	seen := func(by ibc.Identity) {
		t.Helper()
		e := load(t, s)
		next := e.Settled(e.Identity, by)
		if next == nil {
			t.Fatalf("%s does not settle %s", by, e.Identity)
		}
		if err := s.Save(next); err != nil {
			t.Fatal(err)
		}
	}
	install(t, s, p.device(1, 2, floor("clm-1", 1, 2)))
	seen(clm("clm-1", 1, 5))
	want(t, load(t, s), "lower floor", []ibc.Identity{clm("clm-1", 1, 5)}, []ibc.Identity{clm("clm-1", 1, 4), clm("clm-2", 1, 4)})
	// Nor does one that lists a name again after a bundle that did not.
	install(t, s, p.device(1, 3, floor("clm-1", 1, 6), floor("clm-2", 1, 1)))
	seen(clm("clm-1", 1, 6))
	want(t, load(t, s), "listed again", []ibc.Identity{clm("clm-1", 1, 6), clm("clm-2", 1, 4)}, []ibc.Identity{clm("clm-1", 1, 5), clm("clm-2", 1, 3)})
}

// Several bundles follow one another while no CLM comes. The CLM that was seen
// last, however far behind it is, still gets in.
func TestManyUnseenBundles(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	s := p.store()
	install(t, s, p.device(1, 1, floor("clm-1", 1, 1)))
	for generation := uint32(2); generation < 12; generation++ {
		install(t, s, p.device(1, generation, floor("clm-1", 1, generation)))
	}
	install(t, s, p.device(2, 1, floor("clm-1", 2, 1)))
	install(t, s, p.device(2, 2, floor("clm-1", 2, 1)))
	e := load(t, s)
	want(t, e, "unseen", []ibc.Identity{clm("clm-1", 1, 1), clm("clm-1", 2, 1)}, nil)
	if len(e.Predecessors) > 4 {
		t.Errorf("%d predecessors are kept", len(e.Predecessors))
	}
}

// What a model says about any sequence of bundles and handshakes: the identity
// never goes back, a name's floor under the last bundle never falls, and the
// CLM that the device saw last is refused only for a later key of its own.
func TestPropertySuccession(t *testing.T) {
	p := newPlant(t)
	first := p.device(1, 1, floor("a", 1, 1), floor("b", 1, 1))
	rapid.Check(t, func(t *rapid.T) {
		e := &provision.Endpoint{Bundle: first}
		last := clm("a", 1, 1) // seen under the present bundle, or one before
		highest := map[string]uint64{}
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "bundle") {
				b := *first
				epoch := rapid.Uint32Range(1, 2).Draw(t, "epoch")
				b.Identity.Epoch, b.Identity.Generation = epoch, rapid.Uint32Range(1, 20).Draw(t, "generation")
				b.Params, b.Epochs, b.Peers = p.secrets[epoch-1].Params(), p.chain, nil
				for _, name := range []string{"a", "b"} {
					if name == "a" || rapid.Bool().Draw(t, "lists b") {
						b.Peers = append(b.Peers, floor(name, rapid.Uint32Range(1, epoch).Draw(t, "floor epoch"), rapid.Uint32Range(1, 9).Draw(t, "floor")))
					}
				}
				next, err := e.Accept(&b)
				if later := b.Identity.Compare(e.Identity) > 0; later != (err == nil && next != nil) {
					t.Fatalf("%s after %s: %v", b.Identity, e.Identity, err)
				}
				if next != nil {
					e = next
				}
			} else {
				id := clm(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name"), rapid.Uint32Range(1, 2).Draw(t, "CLM epoch"), rapid.Uint32Range(1, 20).Draw(t, "CLM generation"))
				if next := e.Settled(e.Identity, id); next != nil && accepts(e, id) {
					e, last = next, id
				}
			}
			if !accepts(e, last) {
				t.Fatalf("%s is stranded: %s was seen last", e.Identity, last)
			}
			settled := &provision.Endpoint{Bundle: e.Bundle, Floors: e.Floors}
			for _, name := range []string{"a", "b"} {
				if f, ok := settled.Floor(name); ok {
					at := uint64(f.Epoch)<<32 | uint64(f.Generation)
					if at < highest[name] {
						t.Fatalf("the floor of %s fell to e%d.g%d", name, f.Epoch, f.Generation)
					}
					highest[name] = at
				}
			}
		}
	})
}

// The power fails at each operation of taking a bundle of a later epoch. What
// is there then is the old identity or the new one with all that the old one
// allows: the CLM is let in whichever key it has, if the device knows of it.
func TestSuccessionIsAtomic(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	first, second := p.device(1, 1, floor("clm-1", 1, 1)), p.device(2, 1, floor("clm-1", 2, 1))
	for _, mode := range []keyfiletest.Mode{keyfiletest.Kill, keyfiletest.PowerLoss} {
		for cut := 1; ; cut++ {
			s := p.store()
			install(t, s, first)
			layer := keyfiletest.New(cut, mode)
			s.Files = keyfile.On(layer)
			_, err := s.Install(second)
			if err == nil {
				break
			}
			e := load(t, s)
			switch e.Identity {
			case first.Identity:
				want(t, e, "old", []ibc.Identity{clm("clm-1", 1, 1)}, []ibc.Identity{clm("clm-1", 2, 1)})
			case second.Identity:
				want(t, e, "new", []ibc.Identity{clm("clm-1", 1, 1), clm("clm-1", 2, 1)}, nil)
			default:
				t.Errorf("cut %d: %s", cut, e.Identity)
			}
			s.Files = keyfile.Files{}
			install(t, s, second)
			if load(t, s).Identity != second.Identity {
				t.Errorf("cut %d: the repetition did not end it", cut)
			}
		}
	}
}

// What the release before wrote, without predecessors and floors, is read, and
// followed by a later bundle.
func TestFileOfTheReleaseBefore(t *testing.T) {
	t.Parallel()
	p := newPlant(t)
	s := p.store()
	install(t, s, p.device(1, 1, floor("clm-1", 1, 2)))
	path := filepath.Join(s.Dir, provision.IdentityFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		t.Fatal(err)
	}
	for name := range members {
		switch name {
		case "version", "identity", "params", "key", "peers", "names", "recovery_sha256", "recipient_sha256":
		default:
			t.Errorf("a first bundle leaves %q in the file", name)
		}
	}
	install(t, s, p.device(1, 2, floor("clm-1", 1, 3)))
	want(t, load(t, s), "later", []ibc.Identity{clm("clm-1", 1, 2)}, []ibc.Identity{clm("clm-1", 1, 1)})
}

// Attack: somebody with write access to nothing but a bundle tries what only a
// PKG may do. Nothing changes on disk.
func TestRefusedBundlesChangeNothing(t *testing.T) {
	t.Parallel()
	p, stranger := newPlant(t), newPlant(t)
	s := p.store()
	install(t, s, p.device(1, 5, floor("clm-1", 1, 1)))
	path := filepath.Join(s.Dir, provision.IdentityFile)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	with := func(b *bundle.Bundle, change func(*bundle.Bundle)) *bundle.Bundle {
		change(b)
		return b
	}
	for _, c := range []struct {
		name string
		b    *bundle.Bundle
		err  error
	}{
		{"an earlier generation", p.device(1, 4, floor("clm-1", 1, 1)), provision.ErrNotLater},
		{"the same with other peers", p.device(1, 5, floor("clm-9", 1, 1)), provision.ErrNotLater},
		{"another PKG's later generation", stranger.device(1, 6, floor("clm-1", 1, 1)), bundle.ErrParams},
		{"another PKG's later epoch", stranger.device(2, 1, floor("clm-1", 2, 1)), bundle.ErrParams},
		{"another PKG's later epoch with our chain", with(stranger.device(2, 1, floor("clm-1", 2, 1)), func(b *bundle.Bundle) { b.Epochs = p.chain }), bundle.ErrParams},
		{"a later epoch without its chain", with(p.device(2, 1, floor("clm-1", 2, 1)), func(b *bundle.Bundle) { b.Epochs = nil }), bundle.ErrParams},
		{"a later epoch with another recovery key", with(p.device(2, 1, floor("clm-1", 2, 1)), func(b *bundle.Bundle) { b.RecoveryHash = bundle.Hash{9} }), bundle.ErrParams},
		{"another device's", with(p.device(1, 6, floor("clm-1", 1, 1)), func(b *bundle.Bundle) { b.Identity.Name = "plc-2" }), provision.ErrOther},
	} {
		if changed, err := s.Install(c.b); changed || !errors.Is(err, c.err) {
			t.Errorf("%s: changed %v, %v", c.name, changed, err)
		}
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file changed: %v", err)
	}
}

// A params_id from a configuration that nobody touched for years still holds
// the bundles of later epochs that its PKG leads to, and no others.
func TestHeldTo(t *testing.T) {
	t.Parallel()
	p, stranger := newPlant(t), newPlant(t)
	s := p.store()
	first := p.secrets[0].Params().ID()
	later := p.device(2, 1, floor("clm-1", 2, 1))
	if err := s.HeldTo(later, first); !errors.Is(err, bundle.ErrParams) {
		t.Errorf("the first bundle is of another epoch than asked for: %v", err)
	}
	install(t, s, p.device(1, 1, floor("clm-1", 1, 1)))
	for range 2 {
		for _, id := range [][32]byte{first, later.Params.ID()} {
			if err := s.HeldTo(later, id); err != nil {
				t.Error(err)
			}
		}
		if err := s.HeldTo(later, stranger.secrets[0].Params().ID()); !errors.Is(err, bundle.ErrParams) {
			t.Errorf("held to another PKG: %v", err)
		}
		install(t, s, later)
		if root := load(t, s).Root; root != first {
			t.Errorf("the root of trust is %s", root)
		}
	}
	e := load(t, s)
	if err := s.Save(e.Settled(e.Identity, clm("clm-1", 2, 1))); err != nil {
		t.Fatal(err)
	}
	if root := load(t, s).Root; root != first {
		t.Errorf("the root of trust is %s", root)
	}
}
