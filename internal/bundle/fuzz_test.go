package bundle_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// FuzzOpen feeds whole age files.
func FuzzOpen(f *testing.F) {
	m := setup(f, 1)
	alice := newParty(f)
	f.Add(seal(f, device(f, m, "alice"), m, alice.to))
	f.Add([]byte("age-encryption.org/v1\n-> X25519 x\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		if b, err := bundle.Open(data, alice.opener); (b == nil) == (err == nil) {
			t.Fatalf("bundle %v, error %v", b, err)
		}
		_, _ = bundle.SealedTo(data)
	})
}

// FuzzOpenInside feeds what anybody can seal.
func FuzzOpenInside(f *testing.F) {
	m := setup(f, 1)
	alice := newParty(f)
	genuine := unsealed(f, seal(f, device(f, m, "alice"), m, alice.to), alice.identity)
	seed, err := json.Marshal(genuine)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	later, secret := laterEpoch(f, m, "alice")
	if seed, err = json.Marshal(unsealed(f, seal(f, later, secret, alice.to), alice.identity)); err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"version":1,"payload":"","signature":"","key":""}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, plain []byte) {
		b, err := bundle.Open(resealed(t, plain, alice.identity.Recipient()), alice.opener)
		if err == nil && b.Params.ID() != m.Params().ID() && b.Params.ID() != secret.Params().ID() {
			t.Fatal("opened a bundle that nobody made")
		}
	})
}

// FuzzPayload feeds signed payloads, as a PKG of another release might make.
func FuzzPayload(f *testing.F) {
	m := setup(f, 1)
	alice := newParty(f)
	key := device(f, m, "alice").Key
	payload, err := device(f, m, "alice").Payload()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		signature, err := m.Sign(ibc.KindBundle, payload)
		if err != nil {
			t.Fatal(err)
		}
		e := rawEnvelope{1, payload, hexOf(signature), nil, hexOf(key.Bytes())}
		b, err := bundle.Open(resealed(t, e, alice.identity.Recipient()), alice.opener)
		if err != nil {
			return
		}
		if again, err := b.Payload(); err != nil {
			t.Fatalf("accepted, but cannot be encoded: %v\n%s", err, again)
		}
	})
}

// FuzzManifest feeds whole files, and contents that are signed.
func FuzzManifest(f *testing.F) {
	m := setup(f, 1)
	data := marshal(f, manifest(m), m)
	var file struct {
		Content json.RawMessage `json:"content"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		f.Fatal(err)
	}
	f.Add(data, false)
	f.Add([]byte(file.Content), true)
	f.Add([]byte(`{"version":1,"rows":[{}]}`), true)
	f.Add([]byte("{"), false)
	f.Fuzz(func(t *testing.T, data []byte, sign bool) {
		if sign {
			var ok bool
			if data, ok = signed(m, data); !ok {
				return
			}
		}
		man, err := bundle.ParseManifest(data, m.Params())
		if err != nil {
			return
		}
		again, err := man.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bundle.ParseManifest(again, m.Params()); err != nil {
			t.Fatalf("accepted once, refused when written again: %v", err)
		}
	})
}

func signed(m *ibc.MasterSecret, content []byte) ([]byte, bool) {
	var compact bytes.Buffer
	if json.Compact(&compact, content) != nil {
		return nil, false
	}
	signature, err := m.Sign(ibc.KindManifest, compact.Bytes())
	if err != nil {
		return nil, false
	}
	data, err := json.Marshal(map[string]any{
		"version": 1, "params": m.Params(), "content": json.RawMessage(content), "signature": hexOf(signature),
	})
	return data, err == nil
}

// FuzzRecipient feeds recipient files and identity files.
func FuzzRecipient(f *testing.F) {
	secret, r, err := bundle.GenerateOpener()
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(r.String() + "\n"))
	f.Add(secret)
	f.Add([]byte("# comment\nage1xyz"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := bundle.ParseRecipientFile(data); err == nil {
			if again, err := bundle.ParseRecipient(r.String()); err != nil || again.Hash() != r.Hash() {
				t.Fatalf("not the same again: %v", err)
			}
		}
		_, _, _ = bundle.ParseOpener(data)
	})
}

func FuzzFileName(f *testing.F) {
	f.Add("dev-plc-0001.e1.g1.bundle.age")
	f.Add("dev-a=b.e1.g1.bundle.age")
	f.Fuzz(func(t *testing.T, name string) {
		id, err := bundle.ParseFileName(name)
		if err == nil && bundle.FileName(id) != name {
			t.Fatalf("%q is read as %s, which is written %q", name, id, bundle.FileName(id))
		}
	})
}

// FuzzParseSuccession feeds files of epoch statements.
func FuzzParseSuccession(f *testing.F) {
	m := setup(f, 1)
	b, _ := laterEpoch(f, m, "alice")
	genuine, err := bundle.MarshalSuccession(m.Params(), b.Epochs[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(genuine)
	f.Add([]byte(`{"version":1,"kind":"epoch"}`))
	f.Add([]byte(`{"version":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		from, s, err := bundle.ParseSuccession(data)
		if err != nil {
			return
		}
		again, err := bundle.MarshalSuccession(from, s)
		if err != nil {
			t.Fatal(err)
		}
		if _, next, err := bundle.ParseSuccession(again); err != nil || !next.Params.Equal(s.Params) {
			t.Fatalf("written again: %v", err)
		}
	})
}
