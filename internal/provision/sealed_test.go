package provision_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
	"github.com/edgeclm/edgeclm/internal/provision"
)

// machine is a Sealer of its own.
type machine struct{ aead cipher.AEAD }

var errOther = errors.New("sealed by another machine")

// missing is a machine whose device node is gone.
type missing struct{ machine }

var errMissing = errors.New("no TPM")

func (missing) Unseal([]byte) ([]byte, error) {
	return nil, fmt.Errorf("%w: %w", errMissing, fs.ErrNotExist)
}

func newMachine(t testing.TB) machine {
	t.Helper()
	key := make([]byte, 16)
	_, _ = rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	return machine{aead}
}

func (machine) Name() string                         { return "machine" }
func (m machine) Seal(secret []byte) ([]byte, error) { return m.aead.Seal(nil, nil, secret, nil), nil }
func (m machine) Unseal(sealed []byte) ([]byte, error) {
	secret, err := m.aead.Open(nil, nil, sealed, nil)
	if err != nil {
		return nil, errOther
	}
	return secret, nil
}

// checkNoSecret looks for the keys of the endpoint in its directory.
func checkNoSecret(t testing.TB, s provision.Store, key *ibc.PrivateKey) {
	t.Helper()
	for _, name := range []string{provision.RecipientFile, provision.IdentityFile} {
		data, err := os.ReadFile(filepath.Join(s.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		d := key.Bytes()
		if bytes.Contains(data, d) || bytes.Contains(data, []byte(hex.EncodeToString(d))) || bytes.Contains(data, []byte("AGE-SECRET-KEY")) {
			t.Errorf("%s holds a key:\n%s", name, data)
		}
		if info, err := os.Stat(filepath.Join(s.Dir, name)); err != nil || info.Mode().Perm() != keyfile.SecretPerm {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

// Sealed from the first write on, and from then on without being asked.
func TestSealed(t *testing.T) {
	t.Parallel()
	m := setup(t)
	first, second := newBundle(t, m, ibc.RoleCLM, "clm-1", 1), newBundle(t, m, ibc.RoleCLM, "clm-1", 2)
	s := newStore(t)
	s.Sealer, s.Seal = newMachine(t), true
	_, recipient, err := s.Recipient()
	if err != nil {
		t.Fatal(err)
	}
	s.Seal = false
	for _, b := range []*bundle.Bundle{first, second} {
		if changed, err := s.Install(b); err != nil || !changed {
			t.Fatal(changed, err)
		}
		checkNoSecret(t, s, b.Key)
		got, err := s.Load()
		if err != nil || got.Identity != b.Identity || !bytes.Equal(got.Key.Bytes(), b.Key.Bytes()) {
			t.Fatal(got, err)
		}
	}
	if _, again, err := s.Recipient(); err != nil || again.String() != recipient.String() {
		t.Errorf("the recipient was %s, is %s, %v", recipient, again, err)
	}
	if sealed, err := s.Sealed(); err != nil || !sealed {
		t.Errorf("sealed: %v, %v", sealed, err)
	}

	// Without its machine, or on another one, it is nothing.
	for want, sealer := range map[error]provision.Sealer{provision.ErrSealed: nil, errOther: newMachine(t), errMissing: missing{}} {
		s.Sealer = sealer
		_, _, recipientErr := s.Recipient()
		_, loadErr := s.Load()
		_, installErr := s.Install(first)
		for _, err := range []error{recipientErr, loadErr, installErr} {
			if !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
		}
	}
}

// Whoever has the memory card for a while changes what is sealed, or puts one
// sealed file in the place of the other.
func TestSealedFileIsChanged(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.Sealer, s.Seal = newMachine(t), true
	if _, _, err := s.Recipient(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Install(newBundle(t, setup(t), ibc.RoleCLM, "clm-1", 1)); err != nil {
		t.Fatal(err)
	}
	identity, recipient := filepath.Join(s.Dir, provision.IdentityFile), filepath.Join(s.Dir, provision.RecipientFile)
	data, err := os.ReadFile(identity)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(data, []byte(`"data": "`)) + 40
	changed := bytes.Clone(data)
	if changed[at] = 'A'; data[at] == 'A' {
		changed[at] = 'B'
	}
	other, err := os.ReadFile(recipient)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{"a byte": changed, "the other file": other} {
		if err := os.WriteFile(identity, bad, keyfile.SecretPerm); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Load(); !errors.Is(err, provision.ErrFile) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The power fails while what is there is sealed: keys and identity are the same,
// and it is sealed in the end.
func TestSealFilesIsAtomic(t *testing.T) {
	t.Parallel()
	m := setup(t)
	own := newBundle(t, m, ibc.RoleCLM, "clm-1", 1)
	for _, mode := range []keyfiletest.Mode{keyfiletest.Kill, keyfiletest.PowerLoss} {
		for cut := 1; ; cut++ {
			s := newStore(t)
			s.Sealer = newMachine(t)
			_, recipient, err := s.Recipient()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Install(own); err != nil {
				t.Fatal(err)
			}
			if sealed, err := s.Sealed(); err != nil || sealed {
				t.Fatal(sealed, err)
			}
			s.Files = keyfile.On(keyfiletest.New(cut, mode))
			_, sealErr := s.SealFiles()
			s.Files = keyfile.Files{}
			got, err := s.Load()
			if err != nil || got.Identity != own.Identity {
				t.Fatalf("cut %d: %v, %v", cut, got, err)
			}
			if _, err := s.SealFiles(); err != nil {
				t.Fatalf("cut %d: %v", cut, err)
			}
			checkNoSecret(t, s, own.Key)
			if _, again, err := s.Recipient(); err != nil || again.String() != recipient.String() {
				t.Fatalf("cut %d: the recipient is %s, %v", cut, again, err)
			}
			if changed, err := s.SealFiles(); changed || err != nil {
				t.Fatalf("sealed again: %v, %v", changed, err)
			}
			if sealErr == nil {
				break
			}
		}
	}
}

// transparent seals nothing, so that what is fuzzed reaches the inside.
type transparent struct{}

func (transparent) Name() string                         { return "tpm" }
func (transparent) Seal(secret []byte) ([]byte, error)   { return bytes.Clone(secret), nil }
func (transparent) Unseal(sealed []byte) ([]byte, error) { return bytes.Clone(sealed), nil }

func FuzzSealedFile(f *testing.F) {
	s := provision.Store{Dir: filepath.Join(f.TempDir(), "clm"), Role: ibc.RoleCLM, Sealer: transparent{}, Seal: true}
	if err := keyfile.EnsureDir(s.Dir); err != nil {
		f.Fatal(err)
	}
	if _, err := s.Install(newBundle(f, setup(f), ibc.RoleCLM, "clm-1", 1)); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(s.Dir, provision.IdentityFile))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"version":2,"sealed_by":"tpm","sealed_key":"AAAA","data":"AAAA"}`))
	f.Add([]byte(`{"version":1,"sealed_by":"tpm"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := provision.Store{Dir: t.TempDir(), Role: ibc.RoleCLM, Sealer: transparent{}}
		if err := os.WriteFile(filepath.Join(s.Dir, provision.IdentityFile), data, 0o600); err != nil {
			t.Fatal(err)
		}
		e, err := s.Load()
		if err == nil && (e.Validate() != nil || e.Key.Identity() != e.Identity) {
			t.Errorf("accepted %q", data)
		}
	})
}
