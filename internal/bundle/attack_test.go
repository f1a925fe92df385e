package bundle_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

func hexOf(b []byte) string { return hex.EncodeToString(b) }

// rawEnvelope is what is inside the age file, for those who forge one.
type rawEnvelope struct {
	Version   int    `json:"version"`
	Payload   []byte `json:"payload"`
	Signature string `json:"signature"`
	Epochs    any    `json:"epochs,omitempty"`
	Key       string `json:"key"`
}

// unsealed is the envelope of a bundle, opened with the identity's text.
func unsealed(t testing.TB, sealed []byte, identity age.Identity) rawEnvelope {
	t.Helper()
	r, err := age.Decrypt(bytes.NewReader(sealed), identity)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	var e rawEnvelope
	if err := json.Unmarshal(plain, &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// resealed seals anything to a recipient, as anybody can.
func resealed(t testing.TB, plain any, to age.Recipient) []byte {
	t.Helper()
	data, ok := plain.([]byte)
	if !ok {
		var err error
		if data, err = json.Marshal(plain); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// party is a device with its age key.
type party struct {
	identity *age.X25519Identity
	opener   bundle.Opener
	to       bundle.Recipient
}

func newParty(t testing.TB) party {
	t.Helper()
	i, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	o, r, err := bundle.ParseOpener([]byte(i.String()))
	if err != nil {
		t.Fatal(err)
	}
	return party{i, o, r}
}

func refused(t *testing.T, sealed []byte, o bundle.Opener, cause error, says string) {
	t.Helper()
	b, err := bundle.Open(sealed, o)
	if b != nil || !errors.Is(err, cause) || !strings.Contains(err.Error(), says) {
		t.Errorf("bundle %v, error %v; want %v saying %q", b, err, cause, says)
	}
}

// Attack: a bundle is delivered to a device for which it was not sealed.
func TestBundleForAnotherRecipientIsRefused(t *testing.T) {
	m := setup(t, 1)
	alice, bob := newParty(t), newParty(t)
	refused(t, seal(t, device(t, m, "alice"), m, alice.to), bob.opener, bundle.ErrRecipient, "another recipient")
}

// Attack: alice, who may open her bundle, reseals it to bob, so that both hold
// one key. The payload names alice's recipient and is signed.
func TestBundleResealedToAnotherDeviceIsRefused(t *testing.T) {
	m := setup(t, 1)
	alice, bob := newParty(t), newParty(t)
	e := unsealed(t, seal(t, device(t, m, "alice"), m, alice.to), alice.identity)
	refused(t, resealed(t, e, bob.identity.Recipient()), bob.opener, bundle.ErrRecipient, "resealed")
}

// Attack: the holder of a bundle adds a CLM of hers to its peers.
func TestBundleWithChangedPayloadIsRefused(t *testing.T) {
	m := setup(t, 1)
	alice := newParty(t)
	e := unsealed(t, seal(t, device(t, m, "alice"), m, alice.to), alice.identity)
	e.Payload = bytes.Replace(e.Payload, []byte("clm-2"), []byte("clm-x"), 1)
	refused(t, resealed(t, e, alice.identity.Recipient()), alice.opener, ibc.ErrSignature, "alice")
}

// Attack: somebody without the master secret makes a whole bundle: own
// parameters and key, own signature. It is consistent in itself; params_id
// tells.
func TestBundleOfAnotherPKGIsRefusedByParamsID(t *testing.T) {
	m, mallory := setup(t, 1), setup(t, 2)
	alice := newParty(t)
	b, err := bundle.Open(seal(t, device(t, mallory, "alice"), mallory, alice.to), alice.opener)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.HeldTo(m.Params().ID()); !errors.Is(err, bundle.ErrParams) || !strings.Contains(err.Error(), "another PKG") {
		t.Errorf("error %v, want ErrParams", err)
	}
}

// Attack: the forger writes the right PKG's parameters into her own bundle.
// The signature, or else the key, is not of that PKG.
func TestBundleWithBorrowedParametersIsRefused(t *testing.T) {
	m, mallory := setup(t, 1), setup(t, 2)
	alice := newParty(t)
	genuine := unsealed(t, seal(t, device(t, m, "alice"), m, alice.to), alice.identity)
	forged := unsealed(t, seal(t, device(t, mallory, "alice"), mallory, alice.to), alice.identity)

	mixed := genuine
	mixed.Signature = forged.Signature
	refused(t, resealed(t, mixed, alice.identity.Recipient()), alice.opener, ibc.ErrSignature, "")

	mixed = genuine
	mixed.Key = forged.Key
	refused(t, resealed(t, mixed, alice.identity.Recipient()), alice.opener, ibc.ErrKey, "")
}

// Attack: the payload of alice with the key of bob.
func TestBundleWithAnotherKeyIsRefused(t *testing.T) {
	m := setup(t, 1)
	alice := newParty(t)
	e := unsealed(t, seal(t, device(t, m, "alice"), m, alice.to), alice.identity)
	e.Key = hexOf(device(t, m, "bob").Key.Bytes())
	refused(t, resealed(t, e, alice.identity.Recipient()), alice.opener, ibc.ErrKey, "")

	// -d decodes well; only the pairing sees it.
	minus, err := hex.DecodeString(unsealed(t, seal(t, device(t, m, "alice"), m, alice.to), alice.identity).Key)
	if err != nil {
		t.Fatal(err)
	}
	minus[0] ^= 0x20
	e.Key = hexOf(minus)
	refused(t, resealed(t, e, alice.identity.Recipient()), alice.opener, ibc.ErrKey, "")
}

// Attack: a statement of another kind passes for a bundle's.
func TestBundleSignedAsManifestIsRefused(t *testing.T) {
	m := setup(t, 1)
	alice := newParty(t)
	e := unsealed(t, seal(t, device(t, m, "alice"), m, alice.to), alice.identity)
	s, err := m.Sign(ibc.KindManifest, e.Payload)
	if err != nil {
		t.Fatal(err)
	}
	e.Signature = hexOf(s)
	refused(t, resealed(t, e, alice.identity.Recipient()), alice.opener, ibc.ErrSignature, "")
}

// Attack: bytes of the file are changed; every one of them is covered.
func TestTamperedBundleIsRefused(t *testing.T) {
	m := setup(t, 1)
	alice := newParty(t)
	sealed := seal(t, device(t, m, "alice"), m, alice.to)
	for at := range sealed {
		changed := bytes.Clone(sealed)
		changed[at] ^= 1
		if b, err := bundle.Open(changed, alice.opener); b != nil || err == nil {
			t.Fatalf("byte %d changed: opened", at)
		}
	}
	for _, n := range []int{0, 1, 20, len(sealed) - 1} {
		if b, err := bundle.Open(sealed[:n], alice.opener); b != nil || err == nil {
			t.Errorf("cut to %d bytes: opened", n)
		}
	}
	refused(t, append(bytes.Clone(sealed), 0), alice.opener, bundle.ErrFormat, "damaged")
	refused(t, make([]byte, bundle.MaxSize+1), alice.opener, bundle.ErrFormat, "more than")
}

func TestWrongPassphraseIsRefused(t *testing.T) {
	m := setup(t, 1)
	to, err := bundle.PassphraseRecipient([]byte("1234"), [32]byte{1}, workFactor)
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := bundle.PassphraseOpener([]byte("1235"))
	if err != nil {
		t.Fatal(err)
	}
	sealed := seal(t, device(t, m, "alice"), m, to)
	refused(t, sealed, wrong, bundle.ErrPassphrase, "wrong passphrase")
	alice := newParty(t)
	refused(t, sealed, alice.opener, bundle.ErrRecipient, "to a passphrase")
	refused(t, seal(t, device(t, m, "alice"), m, alice.to), wrong, bundle.ErrRecipient, "to an age key")
	if _, err := bundle.PassphraseOpener(nil); !errors.Is(err, bundle.ErrFormat) {
		t.Errorf("empty passphrase: %v", err)
	}
}

// Attack: a file asks for hours of scrypt.
func TestExpensivePassphraseIsRefused(t *testing.T) {
	o, err := bundle.PassphraseOpener([]byte("1234"))
	if err != nil {
		t.Fatal(err)
	}
	to, err := age.NewScryptRecipient("1234")
	if err != nil {
		t.Fatal(err)
	}
	to.SetWorkFactor(workFactor)
	sealed := resealed(t, []byte("{}"), to)
	expensive := bytes.Replace(sealed, []byte(" 4\n"), []byte(" 30\n"), 1)
	if bytes.Equal(sealed, expensive) {
		t.Fatal("no work factor found in the header")
	}
	refused(t, expensive, o, bundle.ErrFormat, "work factor")
}

// Attack: the inside of an age file is anything.
func TestMalformedInsideIsRefused(t *testing.T) {
	m := setup(t, 1)
	alice := newParty(t)
	genuine := unsealed(t, seal(t, device(t, m, "alice"), m, alice.to), alice.identity)
	payload := base64.StdEncoding.EncodeToString(genuine.Payload)
	version2 := genuine
	version2.Version = 2
	payload2 := genuine
	payload2.Payload = bytes.Replace(genuine.Payload, []byte(`"version":1`), []byte(`"version":2`), 1)
	for _, tc := range []struct {
		name  string
		plain any
		cause error
	}{
		{"empty", []byte{}, bundle.ErrFormat},
		{"not JSON", []byte("hello"), bundle.ErrFormat},
		{"no version", []byte("{}"), bundle.ErrVersion},
		{"version 2", version2, bundle.ErrVersion},
		{"payload of version 2", payload2, bundle.ErrVersion},
		{"no payload", []byte(`{"version":1}`), bundle.ErrFormat},
		{"payload null", []byte(`{"version":1,"payload":"bnVsbA=="}`), bundle.ErrVersion},
		{"no signature", []byte(`{"version":1,"payload":"` + payload + `","key":"` + genuine.Key + `"}`), ibc.ErrEncoding},
		{"no key", []byte(`{"version":1,"payload":"` + payload + `","signature":"` + genuine.Signature + `"}`), ibc.ErrEncoding},
		{"key is a number", []byte(`{"version":1,"payload":"","signature":"","key":1}`), bundle.ErrFormat},
		{"key not in hex", []byte(`{"version":1,"payload":"","signature":"","key":"zz"}`), bundle.ErrFormat},
		{"trailing data", []byte(`{"version":1}{}`), bundle.ErrFormat},
	} {
		t.Run(tc.name, func(t *testing.T) {
			refused(t, resealed(t, tc.plain, alice.identity.Recipient()), alice.opener, tc.cause, "")
		})
	}
	// What a later release adds is ignored.
	more := []byte(`{"version":1,"payload":"` + payload + `","signature":"` + genuine.Signature + `","key":"` + genuine.Key + `","new":{"x":1}}`)
	if _, err := bundle.Open(resealed(t, more, alice.identity.Recipient()), alice.opener); err != nil {
		t.Errorf("an unknown key: %v", err)
	}
}
