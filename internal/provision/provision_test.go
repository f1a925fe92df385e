package provision_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
	"github.com/edgeclm/edgeclm/internal/provision"
)

func setup(t testing.TB) *ibc.MasterSecret {
	t.Helper()
	m, err := ibc.Setup(rand.Reader, 1)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func newBundle(t testing.TB, m *ibc.MasterSecret, role ibc.Role, name string, generation uint32) *bundle.Bundle {
	t.Helper()
	id := ibc.Identity{Role: role, Name: name, Epoch: 1, Generation: generation}
	key, err := m.Extract(id)
	if err != nil {
		t.Fatal(err)
	}
	b := &bundle.Bundle{Identity: id, Params: m.Params(), Key: key, Recipient: bundle.Hash{1}, RecoveryHash: bundle.Hash{2}}
	if role == ibc.RoleDevice {
		b.Peers, b.Names = []bundle.Peer{{Name: "clm-1", Epoch: 1, Generation: 1}}, fleet.DefaultNames(name)
	}
	return b
}

func newStore(t testing.TB) provision.Store {
	t.Helper()
	return provision.Store{Dir: filepath.Join(t.TempDir(), "clm"), Role: ibc.RoleCLM}
}

func TestRecipientIsMadeOnce(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	_, first, err := s.Recipient()
	if err != nil {
		t.Fatal(err)
	}
	_, second, err := s.Recipient()
	if err != nil {
		t.Fatal(err)
	}
	if first.String() != second.String() {
		t.Error("the recipient changed")
	}
	for path, want := range map[string]os.FileMode{s.Dir: 0o700, filepath.Join(s.Dir, provision.RecipientFile): 0o600} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
	}
}

func TestInstall(t *testing.T) {
	t.Parallel()
	m := setup(t)
	own := newBundle(t, m, ibc.RoleCLM, "clm-1", 2)
	with := func(change func(*bundle.Bundle)) *bundle.Bundle {
		b := *newBundle(t, m, ibc.RoleCLM, "clm-1", 2)
		change(&b)
		return &b
	}
	for _, c := range []struct {
		name    string
		next    *bundle.Bundle
		changed bool
		err     error
	}{
		{"the same", own, false, nil},
		{"the same for another recipient", with(func(b *bundle.Bundle) { b.Recipient = bundle.Hash{9} }), false, nil},
		{"a later generation", newBundle(t, m, ibc.RoleCLM, "clm-1", 3), true, nil},
		{"an earlier generation", newBundle(t, m, ibc.RoleCLM, "clm-1", 1), false, provision.ErrNotLater},
		{"the same generation with other content", with(func(b *bundle.Bundle) { b.Address = "10.0.0.1:5684" }), false, provision.ErrNotLater},
		{"another name", newBundle(t, m, ibc.RoleCLM, "clm-2", 3), false, provision.ErrOther},
		{"another role", newBundle(t, m, ibc.RoleDevice, "clm-1", 3), false, provision.ErrOther},
		{"another PKG", newBundle(t, setup(t), ibc.RoleCLM, "clm-1", 3), false, bundle.ErrParams},
		{"another recovery key", with(func(b *bundle.Bundle) { b.RecoveryHash = bundle.Hash{9} }), false, bundle.ErrParams},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			if err := keyfile.EnsureDir(s.Dir); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Load(); !errors.Is(err, provision.ErrNone) {
				t.Fatalf("before: %v", err)
			}
			if changed, err := s.Install(own); err != nil || !changed {
				t.Fatalf("first: %v %v", changed, err)
			}
			changed, err := s.Install(c.next)
			if changed != c.changed || !errors.Is(err, c.err) {
				t.Fatalf("got %v, %v", changed, err)
			}
			want := own
			if c.changed {
				want = c.next
			}
			got, err := s.Load()
			if err != nil {
				t.Fatal(err)
			}
			if got.Identity != want.Identity || !bytes.Equal(got.Key.Bytes(), want.Key.Bytes()) || got.RecoveryHash != want.RecoveryHash {
				t.Errorf("stored %s, want %s", got.Identity, want.Identity)
			}
		})
	}
}

// The power fails at each operation of an installation: what is there then is
// the old identity or the new one.
func TestInstallIsAtomic(t *testing.T) {
	t.Parallel()
	m := setup(t)
	first, second := newBundle(t, m, ibc.RoleCLM, "clm-1", 1), newBundle(t, m, ibc.RoleCLM, "clm-1", 2)
	for run := range uint64(6) {
		mode := min(keyfiletest.Mode(run), keyfiletest.Scatter)
		for cut := 1; ; cut++ {
			s := newStore(t)
			if err := keyfile.EnsureDir(s.Dir); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Install(first); err != nil {
				t.Fatal(err)
			}
			layer := keyfiletest.New(cut, mode)
			if mode == keyfiletest.Scatter {
				layer = keyfiletest.NewScattered(cut, run)
			}
			s.Files = keyfile.On(layer)
			_, err := s.Install(second)
			if err == nil {
				break
			}
			got, loadErr := s.Load()
			if loadErr != nil || got.Identity != first.Identity && got.Identity != second.Identity {
				t.Fatalf("cut %d (%v): %v, then %v", cut, err, got, loadErr)
			}
		}
	}
}

// FuzzDeviceFile is FuzzIdentityFile for a device: the file has predecessors,
// floors and a root of trust too.
func FuzzDeviceFile(f *testing.F) {
	p := newPlant(f)
	s := p.store()
	install(f, s, p.device(1, 1, floor("clm-1", 1, 1)))
	install(f, s, p.device(2, 1, floor("clm-1", 2, 1)))
	good, err := os.ReadFile(filepath.Join(s.Dir, provision.IdentityFile))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(bytes.Replace(good, []byte(`"peers"`), []byte(`"piers"`), 2))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := provision.Store{Dir: t.TempDir(), Role: ibc.RoleDevice}
		if err := os.WriteFile(filepath.Join(s.Dir, provision.IdentityFile), data, 0o600); err != nil {
			t.Fatal(err)
		}
		e, err := s.Load()
		if err != nil {
			return
		}
		if len(e.Known()) == 0 || e.Validate() != nil {
			t.Errorf("accepted %q", data)
		}
		e.Settled(e.Identity, clm("clm-1", 2, 1))
		if err := s.Save(e); err != nil {
			t.Fatal(err)
		}
		again, err := s.Load()
		if err != nil {
			t.Fatalf("what was written is not read: %v", err)
		}
		for _, name := range []string{"clm-1", "clm-2"} {
			a, okA := e.Floor(name)
			b, okB := again.Floor(name)
			if a != b || okA != okB {
				t.Errorf("the floor of %s changed: %v, %v", name, a, b)
			}
		}
	})
}

func FuzzIdentityFile(f *testing.F) {
	dir := f.TempDir()
	s := provision.Store{Dir: filepath.Join(dir, "clm"), Role: ibc.RoleCLM}
	if err := keyfile.EnsureDir(s.Dir); err != nil {
		f.Fatal(err)
	}
	if _, err := s.Install(newBundle(f, setup(f), ibc.RoleCLM, "clm-1", 1)); err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(s.Dir, provision.IdentityFile)
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`{"version":1,"identity":"edgeclm/v1/clm/clm-1/e1.g1"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := provision.Store{Dir: t.TempDir(), Role: ibc.RoleCLM}
		if err := os.WriteFile(filepath.Join(s.Dir, provision.IdentityFile), data, 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := s.Load()
		if err == nil && (b.Validate() != nil || b.Key.Identity() != b.Identity) {
			t.Errorf("accepted %q", data)
		}
	})
}
