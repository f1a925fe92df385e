package bundle_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// workFactor keeps scrypt fast in tests.
const workFactor = 4

// setup returns the master secret of a test PKG, the same for the same seed.
func setup(t testing.TB, seed byte) *ibc.MasterSecret {
	t.Helper()
	m, err := ibc.Setup(rand.NewChaCha8([32]byte{seed}), 1)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// device returns a complete bundle of a device, with its key.
func device(t testing.TB, m *ibc.MasterSecret, name string) *bundle.Bundle {
	t.Helper()
	id := ibc.Identity{Role: ibc.RoleDevice, Name: name, Epoch: 1, Generation: 2}
	key, err := m.Extract(id)
	if err != nil {
		t.Fatal(err)
	}
	return &bundle.Bundle{
		Identity:     id,
		Params:       m.Params(),
		Key:          key,
		Peers:        []bundle.Peer{{Name: "clm-1", Epoch: 1, Generation: 3}, {Name: "clm-2", Epoch: 1, Generation: 1}},
		Names:        fleet.DefaultNames(name),
		RecoveryHash: sha256.Sum256([]byte("recovery")),
		Address:      "[2001:db8::1]:5684",
		CLMAddresses: []string{"clm.example:5684"},
	}
}

func opener(t testing.TB) (bundle.Opener, bundle.Recipient) {
	t.Helper()
	secret, _, err := bundle.GenerateOpener()
	if err != nil {
		t.Fatal(err)
	}
	o, r, err := bundle.ParseOpener(secret)
	if err != nil {
		t.Fatal(err)
	}
	return o, r
}

func seal(t testing.TB, b *bundle.Bundle, m bundle.Signer, to bundle.Recipient) []byte {
	t.Helper()
	sealed, _, err := bundle.Seal(b, m, to)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestSealAndOpen(t *testing.T) {
	m := setup(t, 1)
	hybrid, hybridRecipient := opener(t)
	x25519, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	classic, classicRecipient, err := bundle.ParseOpener([]byte(x25519.String() + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	pass, err := bundle.PassphraseOpener([]byte("1234"))
	if err != nil {
		t.Fatal(err)
	}
	passRecipient, err := bundle.PassphraseRecipient([]byte("1234"), [32]byte{9}, workFactor)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		kind   string
		opener bundle.Opener
		to     bundle.Recipient
	}{
		{"mlkem768x25519", hybrid, hybridRecipient},
		{"X25519", classic, classicRecipient},
		{"scrypt", pass, passRecipient},
	} {
		t.Run(tc.kind, func(t *testing.T) {
			want := device(t, m, "plc-0001.bilbao")
			sealed, hash, err := bundle.Seal(want, m, tc.to)
			if err != nil {
				t.Fatal(err)
			}
			payload, err := want.Payload()
			if err != nil {
				t.Fatal(err)
			}
			if hash != sha256.Sum256(payload) {
				t.Error("the hash returned is not that of the payload")
			}
			if kinds, err := bundle.SealedTo(sealed); err != nil || len(kinds) != 1 || kinds[0] != tc.kind {
				t.Errorf("sealed to %v, %v", kinds, err)
			}
			got, err := bundle.Open(sealed, tc.opener)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Key.Bytes(), want.Key.Bytes()) || got.Params.ID() != want.Params.ID() {
				t.Error("another key or other parameters")
			}
			if err := got.HeldTo(m.Params().ID()); err != nil {
				t.Error(err)
			}
			if got.Signed != hash {
				t.Errorf("it was signed as %s, issued as %s", got.Signed, hash)
			}
			got.Key, got.Params, got.Signed = want.Key, want.Params, bundle.Hash{}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

// What is sealed never holds the key in clear, nor does an error or a print.
func TestKeyIsNotInClear(t *testing.T) {
	m := setup(t, 1)
	_, to := opener(t)
	b := device(t, m, "plc-0001")
	sealed := seal(t, b, m, to)
	payload, err := b.Payload()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"file": sealed, "payload": payload} {
		if bytes.Contains(data, b.Key.Bytes()) || strings.Contains(string(data), hexOf(b.Key.Bytes())) {
			t.Errorf("the key is in the %s", name)
		}
	}
}

func TestBundleOfCLM(t *testing.T) {
	m := setup(t, 1)
	o, to := opener(t)
	id := ibc.Identity{Role: ibc.RoleCLM, Name: "clm-1", Epoch: 1, Generation: 1}
	key, err := m.Extract(id)
	if err != nil {
		t.Fatal(err)
	}
	b := &bundle.Bundle{Identity: id, Params: m.Params(), Key: key}
	if got, err := bundle.Open(seal(t, b, m, to), o); err != nil || got.Identity != id {
		t.Errorf("%v, %v", got, err)
	}
}

func TestValidate(t *testing.T) {
	m := setup(t, 1)
	nine := make([]bundle.Peer, 9)
	for i := range nine {
		nine[i] = bundle.Peer{Name: "clm-" + string(rune('a'+i)), Epoch: 1, Generation: 1}
	}
	for name, spoil := range map[string]func(*bundle.Bundle){
		"no parameters":         func(b *bundle.Bundle) { b.Params = nil },
		"no identity":           func(b *bundle.Bundle) { b.Identity = ibc.Identity{} },
		"another epoch":         func(b *bundle.Bundle) { b.Identity.Epoch = 2 },
		"no CLM":                func(b *bundle.Bundle) { b.Peers = nil },
		"nine CLMs":             func(b *bundle.Bundle) { b.Peers = nine },
		"a CLM twice":           func(b *bundle.Bundle) { b.Peers[1].Name = b.Peers[0].Name },
		"a CLM without floor":   func(b *bundle.Bundle) { b.Peers[0].Generation = 0 },
		"a CLM of a wrong name": func(b *bundle.Bundle) { b.Peers[0].Name = "CLM" },
		"no names":              func(b *bundle.Bundle) { b.Names = nil },
		"a wrong name":          func(b *bundle.Bundle) { b.Names[0].Kind = "email" },
		"too many names":        func(b *bundle.Bundle) { b.Names = make([]fleet.Name, fleet.MaxNames+1) },
		"address without port":  func(b *bundle.Bundle) { b.Address = "10.0.0.1" },
		"CLM address":           func(b *bundle.Bundle) { b.CLMAddresses[0] = "clm.example:0" },
		"too many CLM address":  func(b *bundle.Bundle) { b.CLMAddresses = make([]string, 9) },
		"no certificate":        func(b *bundle.Bundle) { b.Anchors = [][]byte{[]byte("x")} },
		"a large anchor":        func(b *bundle.Bundle) { b.Anchors = [][]byte{make([]byte, bundle.MaxAnchorSize+1)} },
		"five anchors":          func(b *bundle.Bundle) { b.Anchors = make([][]byte, 5) },
		"a CLM with peers":      func(b *bundle.Bundle) { b.Identity.Role = ibc.RoleCLM },
	} {
		t.Run(name, func(t *testing.T) {
			b := device(t, m, "plc-0001")
			spoil(b)
			if err := b.Validate(); !errors.Is(err, bundle.ErrFormat) {
				t.Errorf("error %v, want ErrFormat", err)
			}
			if _, _, err := bundle.Seal(b, m, bundle.Recipient{}); err == nil {
				t.Error("sealed")
			}
		})
	}
	if err := device(t, m, "plc-0001").Validate(); err != nil {
		t.Error(err)
	}
}

func TestValidateAddress(t *testing.T) {
	for _, ok := range []string{"10.0.0.1:5684", "[::1]:1", "plc-1.example:65535", "localhost:80"} {
		if err := bundle.ValidateAddress(ok); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
	for _, bad := range []string{"", ":5684", "10.0.0.1", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:05684", "10.0.0.1:+1", "::1:80", "a b:80", "10.0.0.256:80", "x\n:80", strings.Repeat("a.", 126) + "aa:80"} {
		if err := bundle.ValidateAddress(bad); !errors.Is(err, bundle.ErrFormat) {
			t.Errorf("%q: error %v, want ErrFormat", bad, err)
		}
	}
}

func TestSealRefusesAnotherKey(t *testing.T) {
	m := setup(t, 1)
	_, to := opener(t)
	b := device(t, m, "plc-0001")
	b.Key = device(t, m, "plc-0002").Key
	if _, _, err := bundle.Seal(b, m, to); !errors.Is(err, ibc.ErrKey) {
		t.Errorf("error %v, want ErrKey", err)
	}
	b.Key = nil
	if _, _, err := bundle.Seal(b, m, to); !errors.Is(err, ibc.ErrKey) {
		t.Errorf("without key: error %v, want ErrKey", err)
	}
}

func TestParseRecipient(t *testing.T) {
	_, r := opener(t)
	if got, err := bundle.ParseRecipient(r.String()); err != nil || got.Hash() != r.Hash() {
		t.Errorf("%v, %v", got, err)
	}
	if r.Hash() != sha256.Sum256([]byte(r.String())) {
		t.Error("the hash is not that of the text")
	}
	if got, err := bundle.ParseRecipientFile([]byte("# of plc-1\n\n" + r.String() + "\r\n")); err != nil || got.Hash() != r.Hash() {
		t.Errorf("file: %v, %v", got, err)
	}
	secret, _, err := bundle.GenerateOpener()
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"empty": "", "comment": "# none\n", "two": r.String() + "\n" + r.String() + "\n", "cut": r.String()[:100],
		"private key": string(secret), "long": "age1" + strings.Repeat("q", 5000), "ssh": "ssh-ed25519 AAAA",
	} {
		_, err := bundle.ParseRecipientFile([]byte(bad))
		if !errors.Is(err, bundle.ErrFormat) {
			t.Errorf("%s: error %v, want ErrFormat", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: the error holds a private key: %v", name, err)
		}
	}
	_, _, err = bundle.ParseOpener([]byte("# created: 2026-01-02T09:00:00Z\r\n# public key: " + r.String() + "\r\n" + string(secret) + "\r\n"))
	if err != nil {
		t.Errorf("a key as age-keygen writes it: %v", err)
	}
	twice := string(secret) + "\n" + string(secret)
	for _, bad := range []string{"", "# none\n", twice, "AGE-SECRET-KEY-1QQQQ", "AGE-SECRET-KEY-PQ-1QQQ", r.String()} {
		if _, _, err := bundle.ParseOpener([]byte(bad)); !errors.Is(err, bundle.ErrFormat) || strings.Contains(err.Error(), "QQQ") || strings.Contains(err.Error(), string(secret)) {
			t.Errorf("%.20q: error %v, want ErrFormat", bad, err)
		}
	}
}

func TestFileName(t *testing.T) {
	for _, tc := range []struct {
		id   ibc.Identity
		name string
	}{
		{ibc.Identity{Role: "dev", Name: "plc-0001", Epoch: 1, Generation: 1}, "dev-plc-0001.e1.g1.bundle.age"},
		{ibc.Identity{Role: "clm", Name: "clm-1", Epoch: 2, Generation: 30}, "clm-clm-1.e2.g30.bundle.age"},
		{ibc.Identity{Role: "dev", Name: "a:b:1", Epoch: 1, Generation: 1}, "dev-a=b=1.e1.g1.bundle.age"},
		{ibc.Identity{Role: "dev", Name: "x.e1.g1", Epoch: 1, Generation: 2}, "dev-x.e1.g1.e1.g2.bundle.age"},
	} {
		if got := bundle.FileName(tc.id); got != tc.name {
			t.Errorf("%s: %s, want %s", tc.id, got, tc.name)
		}
		if got, err := bundle.ParseFileName(tc.name); err != nil || got != tc.id {
			t.Errorf("%s: %s, %v", tc.name, got, err)
		}
	}
	for _, bad := range []string{"", "dev-a.e1.g1", "dev-a:b.e1.g1.bundle.age", "dev.bundle.age", "dev-a.g1.e1.bundle.age", "dev-a.e01.g1.bundle.age", "ca-a.e1.g1.bundle.age", "manifest.json"} {
		if id, err := bundle.ParseFileName(bad); !errors.Is(err, bundle.ErrFormat) {
			t.Errorf("%q: %s, error %v, want ErrFormat", bad, id, err)
		}
	}
}
