package coaplink

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/ibc"
)

// TestBindingMessageVectors: the signed message, byte for byte as another
// implementation computed it.
func TestBindingMessageVectors(t *testing.T) {
	data, err := os.ReadFile("../ibc/testdata/ibc-v1.json")
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Messages []struct {
			Identity string `json:"identity"`
			LP       string `json:"lp_hex"`
			What     string `json:"what"`
		} `json:"labelled_messages"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, m := range v.Messages {
		if !strings.HasPrefix(m.What, "dtls-binding") {
			continue
		}
		tried++
		id, err := ibc.ParseIdentity(m.Identity)
		if err != nil {
			t.Fatal(err)
		}
		var context []byte
		if strings.Contains(m.What, "28 x a5") {
			context = bytes.Repeat([]byte{0xa5}, ContextSize)
		}
		got, err := BindingMessage(id, sha256.Sum256([]byte("spki")), context)
		if err != nil || hex.EncodeToString(got) != m.LP {
			t.Errorf("%s: %x, %v", m.What, got, err)
		}
	}
	if tried < 2 {
		t.Errorf("only %d vectors", tried)
	}
}

// TestBindingHasOneEncoding: whatever encodes the same binding otherwise, or
// is out of bounds, is refused.
func TestBindingHasOneEncoding(t *testing.T) {
	key := newPKG(t, 1).key(t, ibc.RoleDevice, "plc-1", 1)
	b, err := NewBinding(key, rand.Reader, [32]byte{1}, make([]byte, ContextSize))
	if err != nil {
		t.Fatal(err)
	}
	der, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := ParseBinding(der)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := parsed.Marshal(); err != nil || !bytes.Equal(again, der) {
		t.Errorf("re-encoded as %x, %v", again, err)
	}
	good := bindingASN1{Version: 1, ParamsID: b.ParamsID[:], Identity: b.Identity.String(), Context: b.Context, Signature: b.Signature}
	encode := func(v any) []byte {
		out, err := asn1.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	changed := func(change func(*bindingASN1)) []byte {
		v := good
		change(&v)
		return encode(v)
	}
	if !bytes.Equal(changed(func(*bindingASN1) {}), der) {
		t.Fatal("the test encodes otherwise")
	}
	printable := struct {
		Version   int
		ParamsID  []byte
		Identity  string `asn1:"printable"`
		Context   []byte
		Signature []byte
	}{1, good.ParamsID, "edgeclm/v1/dev/plc-1/e1.g1", good.Context, good.Signature}
	longer := struct {
		Version   int
		ParamsID  []byte
		Identity  string `asn1:"utf8"`
		Context   []byte
		Signature []byte
		More      int
	}{1, good.ParamsID, good.Identity, good.Context, good.Signature, 1}
	for name, bad := range map[string][]byte{
		"empty":                     {},
		"trailing":                  append(bytes.Clone(der), 0),
		"truncated":                 der[:len(der)-1],
		"an element more":           encode(longer),
		"another string type":       encode(printable),
		"length in long form":       append([]byte{0x30, 0x82, 0x00, der[2]}, der[3:]...),
		"version 0":                 changed(func(v *bindingASN1) { v.Version = 0 }),
		"version 2":                 changed(func(v *bindingASN1) { v.Version = 2 }),
		"short parameters":          changed(func(v *bindingASN1) { v.ParamsID = v.ParamsID[1:] }),
		"no canonical identity":     changed(func(v *bindingASN1) { v.Identity = "edgeclm/v1/dev/PLC-1/e1.g1" }),
		"a zero in the generation":  changed(func(v *bindingASN1) { v.Identity = "edgeclm/v1/dev/plc-1/e1.g01" }),
		"a context of 27 bytes":     changed(func(v *bindingASN1) { v.Context = v.Context[1:] }),
		"a signature of 95 bytes":   changed(func(v *bindingASN1) { v.Signature = v.Signature[1:] }),
		"a signature of 97 bytes":   changed(func(v *bindingASN1) { v.Signature = append(bytes.Clone(v.Signature), 0) }),
		"an identity of 1000 bytes": changed(func(v *bindingASN1) { v.Identity = strings.Repeat("x", 1000) }),
	} {
		if _, err := ParseBinding(bad); !errors.Is(err, ErrBinding) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLargestBindingFits: the longest identity there is still makes a
// certificate of at most 1 KiB.
func TestLargestBindingFits(t *testing.T) {
	m, err := ibc.Setup(rand.Reader, 1<<31-1)
	if err != nil {
		t.Fatal(err)
	}
	key := pkg{m}.key(t, ibc.RoleDevice, strings.Repeat("n", 64), 1<<31-1)
	c := bound(t, key, make([]byte, ContextSize))
	der, err := bind(key, rand.Reader, newP256(t), c.binding.Context)
	if err != nil || len(der) > MaxBindingCertificate {
		t.Errorf("%d bytes, %v", len(der), err)
	}
	t.Logf("%d bytes", len(der))
	if _, err := parsePresented([][]byte{der}); err != nil {
		t.Error(err)
	}
}

// TestStoredCredential: a credential comes back as it was stored, and only for
// the identity, generation and parameters that it is bound to.
func TestStoredCredential(t *testing.T) {
	p, foreign := newPKG(t, 1), newPKG(t, 1)
	key := p.key(t, ibc.RoleCLM, "clm-1", 2)
	c, err := NewCredential(key, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := c.MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseCredential(stored, key)
	if err != nil || !bytes.Equal(got.Certificate(), c.Certificate()) || !got.key.Equal(c.key) || got.Identity() != key.Identity() {
		t.Errorf("read back %v, %v", got, err)
	}
	other, err := p.credential(t, "clm-1", 2).MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	certificate, private := split(t, stored)
	_, otherPrivate := split(t, other)
	device, deviceKey, err := newBound(p.key(t, ibc.RoleDevice, "clm-1", 2), rand.Reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	devicePEM, err := (&Credential{key: deviceKey, certificate: device}).MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		data []byte
		key  *ibc.PrivateKey
	}{
		"a later generation":      {stored, p.key(t, ibc.RoleCLM, "clm-1", 3)},
		"another CLM":             {stored, p.key(t, ibc.RoleCLM, "clm-2", 2)},
		"another PKG":             {stored, foreign.key(t, ibc.RoleCLM, "clm-1", 2)},
		"a device's":              {devicePEM, key},
		"another private key":     {append(bytes.Clone(certificate), otherPrivate...), key},
		"no private key":          {certificate, key},
		"no certificate":          {private, key},
		"more behind it":          {append(bytes.Clone(stored), certificate...), key},
		"empty":                   {nil, key},
		"large":                   {bytes.Repeat([]byte("x"), maxCredential+1), key},
		"a broken private key":    {append(bytes.Clone(certificate), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"...), key},
		"a certificate that lies": {forgedCredential(t, key, foreign.key(t, ibc.RoleCLM, "clm-1", 2)), key},
	} {
		if _, err := ParseCredential(c.data, c.key); !errors.Is(err, ErrCredential) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewCredential(p.key(t, ibc.RoleDevice, "plc-1", 1), rand.Reader); !errors.Is(err, ErrCredential) {
		t.Errorf("a device's credential was made: %v", err)
	}
}

// forgedCredential names key's identity and parameters but is signed by other.
func forgedCredential(t *testing.T, key, other *ibc.PrivateKey) []byte {
	t.Helper()
	f := bound(t, other, nil)
	f.binding.ParamsID = key.Params().ID()
	c := f.tls()
	handshakeKey, ok := f.key.(*ecdsa.PrivateKey)
	if !ok {
		t.Fatalf("the key is a %T", f.key)
	}
	out, err := (&Credential{key: handshakeKey, certificate: c.Certificate[0]}).MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func split(t *testing.T, data []byte) (certificate, private []byte) {
	t.Helper()
	first, rest := pem.Decode(data)
	second, _ := pem.Decode(rest)
	if first == nil || second == nil {
		t.Fatal("not two PEM blocks")
	}
	return pem.EncodeToMemory(first), pem.EncodeToMemory(second)
}
