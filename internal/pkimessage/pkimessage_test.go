package pkimessage

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"
	"github.com/smallstep/scep"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) {
	if err := Configure(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// identities are two signers, made once: RSA keys are slow to make.
var identities = sync.OnceValue(func() [2]Signer {
	var out [2]Signer
	for i := range out {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		out[i] = signer(int64(i+1), key)
	}
	return out
})

// signer certifies a key; all have the same name.
func signer(serial int64, key crypto.Signer) Signer {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "signer"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return Signer{Certificate: certificate, Key: key}
}

// reply is a CertRep with all attributes.
func reply() *Message {
	return &Message{
		Type: scep.CertRep, TransactionID: "00ff", SenderNonce: bytes.Repeat([]byte{1}, 16), RecipientNonce: bytes.Repeat([]byte{2}, 16),
		Status: scep.FAILURE, FailInfo: scep.BadRequest, FailText: "nö", Content: []byte("content"),
	}
}

func mustSign(t testing.TB, m *Message, signers ...Signer) []byte {
	t.Helper()
	der, err := Sign(m, signers...)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestRoundTrip: what is signed is parsed with the same fields.
func TestRoundTrip(t *testing.T) {
	s := identities()[0]
	rapid.Check(t, func(t *rapid.T) {
		digits := rapid.StringMatching(`[0-9]{0,2}`)
		nonce := rapid.SliceOfN(rapid.Byte(), 0, 32)
		m := &Message{
			Type:          scep.MessageType(digits.Draw(t, "type")),
			TransactionID: rapid.StringMatching(`[0-9a-f]{0,64}`).Draw(t, "transaction"),
			Status:        scep.PKIStatus(digits.Draw(t, "status")),
			FailInfo:      scep.FailInfo(digits.Draw(t, "info")),
			FailText:      rapid.StringMatching(`[a-zA-Zéß .]{0,40}`).Draw(t, "text"),
			SenderNonce:   nonce.Draw(t, "sender"), RecipientNonce: nonce.Draw(t, "recipient"),
			Content: rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "content"),
		}
		der, err := Sign(m, s)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseReply(der, []*x509.Certificate{s.Certificate})
		if err != nil {
			t.Fatal(err)
		}
		same := got.Type == m.Type && got.TransactionID == m.TransactionID && got.Status == m.Status && got.FailInfo == m.FailInfo &&
			got.FailText == m.FailText && bytes.Equal(got.SenderNonce, m.SenderNonce) && bytes.Equal(got.RecipientNonce, m.RecipientNonce) &&
			bytes.Equal(got.Content, m.Content) && got.Signer.Equal(s.Certificate) && !got.WeakDigest
		if !same {
			t.Fatalf("got %+v, want %+v", got, m)
		}
	})
}

// TestSealOpen: only the recipient's key opens, and the content is not DES.
func TestSealOpen(t *testing.T) {
	t.Parallel()
	ids := identities()
	content := []byte("a PKCS#10")
	sealed, err := Seal(content, ids[0].Certificate)
	if err != nil {
		t.Fatal(err)
	}
	aes128CBC, err := asn1.Marshal(pkcs7.OIDEncryptionAlgorithmAES128CBC)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(sealed, aes128CBC) {
		t.Error("the content is not encrypted with AES-128-CBC")
	}
	got, err := Open(sealed, ids[0].Certificate, decrypter(ids[0]))
	if err != nil || !bytes.Equal(got, content) {
		t.Fatalf("Open = %q, %v", got, err)
	}
	wrong := map[string]func() ([]byte, error){
		"another recipient": func() ([]byte, error) { return Open(sealed, ids[1].Certificate, decrypter(ids[1])) },
		"another key":       func() ([]byte, error) { return Open(sealed, ids[0].Certificate, decrypter(ids[1])) },
		"not an envelope": func() ([]byte, error) {
			return Open(mustSign(t, reply(), ids[0]), ids[0].Certificate, decrypter(ids[0]))
		},
		"nothing":             func() ([]byte, error) { return Open(nil, ids[0].Certificate, decrypter(ids[0])) },
		"a torn last block":   func() ([]byte, error) { return Open(shortened(t, sealed), ids[0].Certificate, decrypter(ids[0])) },
		"padding beyond data": func() ([]byte, error) { return Open(overPadded(t, ids[0]), ids[0].Certificate, decrypter(ids[0])) },
	}
	for name, open := range wrong {
		if got, err := open(); !errors.Is(err, ErrEnvelope) || err.Error() != ErrEnvelope.Error() || got != nil {
			t.Errorf("%s: Open = %q, %v; want nothing but ErrEnvelope", name, got, err)
		}
	}
}

func decrypter(s Signer) crypto.Decrypter {
	d, ok := s.Key.(crypto.Decrypter)
	if !ok {
		panic("no decrypter")
	}
	return d
}

// envelope and friends mirror RFC 5652 section 6.1 far enough to be edited.
type envelope struct {
	Type    asn1.ObjectIdentifier
	Content struct {
		Version    int
		Recipients asn1.RawValue
		Encrypted  struct {
			Type      asn1.ObjectIdentifier
			Algorithm pkix.AlgorithmIdentifier
			Content   asn1.RawValue
		}
	} `asn1:"explicit,tag:0"`
}

// edited replaces the ciphertext of an envelope.
func edited(t testing.TB, sealed []byte, edit func([]byte) []byte) []byte {
	t.Helper()
	var e envelope
	if _, err := asn1.Unmarshal(sealed, &e); err != nil {
		t.Fatal(err)
	}
	c := &e.Content.Encrypted.Content
	*c = asn1.RawValue{Class: c.Class, Tag: c.Tag, Bytes: edit(c.Bytes)}
	der, err := asn1.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// shortened cuts one byte off the ciphertext: the library panics there.
func shortened(t testing.TB, sealed []byte) []byte {
	return edited(t, sealed, func(b []byte) []byte { return b[:len(b)-1] })
}

// overPadded flips the ciphertext so that the padding claims more bytes than
// there are: the library panics there too.
func overPadded(t testing.TB, to Signer) []byte {
	t.Helper()
	sealed, err := Seal(nil, to.Certificate) // one block of padding, 0x10 each
	if err != nil {
		t.Fatal(err)
	}
	// The last plaintext byte is flipped through the initialisation vector,
	// the 16 bytes before the ciphertext's own header.
	at := bytes.LastIndex(sealed, append([]byte{0x04, 0x10}, ivOf(t, sealed)...)) + 2 + 15
	out := bytes.Clone(sealed)
	out[at] ^= 0x10 ^ 0xff
	return out
}

func ivOf(t testing.TB, sealed []byte) []byte {
	t.Helper()
	var e envelope
	if _, err := asn1.Unmarshal(sealed, &e); err != nil {
		t.Fatal(err)
	}
	return e.Content.Encrypted.Algorithm.Parameters.Bytes
}

// TestSigners: exactly one signature, by one of the certificates given.
func TestSigners(t *testing.T) {
	t.Parallel()
	ids := identities()
	first, second := []*x509.Certificate{ids[0].Certificate}, []*x509.Certificate{ids[1].Certificate}
	forged := signer(1, ids[1].Key)
	tests := []struct {
		name    string
		message []byte
		by      []*x509.Certificate
		ok      bool
	}{
		{"the one", mustSign(t, reply(), ids[0]), first, true},
		{"one of two", mustSign(t, reply(), ids[0]), slices.Concat(second, first), true},
		{"another", mustSign(t, reply(), ids[1]), first, false},
		{"another under its name", mustSign(t, reply(), forged), first, false},
		{"two", mustSign(t, reply(), ids[0], ids[1]), slices.Concat(first, second), false},
		{"the same twice", mustSign(t, reply(), ids[0], ids[0]), first, false},
		{"none", mustSign(t, reply()), first, false},
		{"nobody to trust", mustSign(t, reply(), ids[0]), nil, false},
	}
	for _, tt := range tests {
		m, err := ParseReply(tt.message, tt.by)
		if tt.ok != (err == nil) || err != nil && !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if err != nil && m != nil {
			t.Errorf("%s: a message beside the error", tt.name)
		}
	}
	if m, err := ParseRequest(mustSign(t, reply(), ids[1])); err != nil || !m.Signer.Equal(ids[1].Certificate) {
		t.Errorf("request signed by the certificate that it encloses: %v", err)
	}
}

// TestEveryBit: no byte of a signed message can be changed such that another
// content or attribute comes out.
func TestEveryBit(t *testing.T) {
	t.Parallel()
	id := identities()[0]
	by := []*x509.Certificate{id.Certificate}
	der := mustSign(t, reply(), id)
	want, err := ParseReply(der, by)
	if err != nil {
		t.Fatal(err)
	}
	for i := range der {
		changed := bytes.Clone(der)
		changed[i] ^= 1 << (i % 8)
		got, err := ParseReply(changed, by)
		if err != nil {
			continue
		}
		got.Certificates, got.Signer, want.Certificates, want.Signer = nil, nil, nil, nil
		if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Fatalf("byte %d changed: %+v", i, got)
		}
	}
}

// signedWith signs with attributes that Sign would not write.
func signedWith(t testing.TB, digest asn1.ObjectIdentifier, extra ...pkcs7.Attribute) []byte {
	t.Helper()
	return signedAs(t, pkcs7.OIDData, digest, extra...)
}

// signedAs is signedWith for another type of content.
func signedAs(t testing.TB, kind, digest asn1.ObjectIdentifier, extra ...pkcs7.Attribute) []byte {
	t.Helper()
	id := identities()[0]
	sd, err := pkcs7.NewSignedData([]byte("content"))
	if err != nil {
		t.Fatal(err)
	}
	sd.GetSignedData().ContentInfo.ContentType = kind
	sd.SetDigestAlgorithm(digest)
	if err := sd.AddSigner(id.Certificate, id.Key, pkcs7.SignerInfoConfig{ExtraSignedAttributes: extra}); err != nil {
		t.Fatal(err)
	}
	der, err := sd.Finish()
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestAttributes: what is ambiguous or of the wrong type is refused.
func TestAttributes(t *testing.T) {
	t.Parallel()
	by := []*x509.Certificate{identities()[0].Certificate}
	sha256 := pkcs7.OIDDigestAlgorithmSHA256
	many := make([]pkcs7.Attribute, maxAttributes)
	for i := range many {
		many[i] = pkcs7.Attribute{Type: asn1.ObjectIdentifier{1, 2, 3, i}, Value: 1}
	}
	bad := map[string][]byte{
		"nonce twice": signedWith(t, sha256,
			pkcs7.Attribute{Type: oidRecipientNonce, Value: []byte("one")}, pkcs7.Attribute{Type: oidRecipientNonce, Value: []byte("two")}),
		"nonce that is a string":  signedWith(t, sha256, pkcs7.Attribute{Type: oidRecipientNonce, Value: "text"}),
		"type that is a number":   signedWith(t, sha256, pkcs7.Attribute{Type: oidMessageType, Value: 3}),
		"too long":                signedWith(t, sha256, pkcs7.Attribute{Type: oidSenderNonce, Value: make([]byte, maxValue+1)}),
		"too many":                signedWith(t, sha256, many...),
		"another content type":    signedAs(t, pkcs7.OIDEnvelopedData, sha256),
		"values that are not one": signedWith(t, sha256, pkcs7.Attribute{Type: oidSenderNonce, Value: asn1.RawValue{FullBytes: []byte{4, 1, 1, 4, 1, 2}}}),
		"nonce that is null":      signedWith(t, sha256, pkcs7.Attribute{Type: oidSenderNonce, Value: asn1.RawValue{FullBytes: []byte{5, 0}}}),
	}
	for name, der := range bad {
		if _, err := ParseReply(der, by); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	m, err := ParseReply(signedWith(t, pkcs7.OIDDigestAlgorithmSHA1), by)
	if err != nil || !m.WeakDigest {
		t.Errorf("SHA-1: %+v, %v", m, err)
	}
}

// TestCertsOnly: certificates come back in order; nothing else is taken.
func TestCertsOnly(t *testing.T) {
	t.Parallel()
	ids := identities()
	der, err := CertsOnly(ids[0].Certificate, ids[1].Certificate)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseCertsOnly(der)
	if err != nil || len(got) != 2 || !got[0].Equal(ids[0].Certificate) || !got[1].Equal(ids[1].Certificate) {
		t.Fatalf("%v, %v", got, err)
	}
	empty, err := CertsOnly()
	if err != nil {
		t.Fatal(err)
	}
	crowd, err := CertsOnly(slices.Repeat([]*x509.Certificate{ids[0].Certificate}, maxCertificates+1)...)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := Seal(der, ids[0].Certificate)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "no certificate": empty, "too many": crowd, "an envelope": sealed,
		"trailing bytes": append(bytes.Clone(der), 0), "cut off": der[:len(der)-1],
		"three bytes": {0x30, 0x80, 0x24}, "one byte": {0x30}, "a long tag": {0x3f, 0x81, 0x01, 0x00},
	} {
		if _, err := ParseCertsOnly(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNesting: the library recurses for every level, so deep ones never reach
// it.
func TestNesting(t *testing.T) {
	t.Parallel()
	nested := func(depth int, header ...byte) []byte { return bytes.Repeat(header, depth) }
	tests := []struct {
		name string
		ber  []byte
		ok   bool
	}{
		{"indefinite to the end", nested(MaxMessage/2, 0x30, 0x80), false},
		{"empty indefinite ones", nested(MaxMessage/4, 0x30, 0x80, 0, 0), false},
		{"empty indefinite ones within", slices.Concat([]byte{0x30, 0x80}, nested(1000, 0x30, 0x80, 0, 0), []byte{0, 0}), false},
		{"as deep as allowed", slices.Concat(nested(maxDepth, 0x30, 0x80), []byte{5, 0}, nested(maxDepth, 0, 0)), true},
		{"one deeper", slices.Concat(nested(maxDepth+1, 0x30, 0x80), []byte{5, 0}, nested(maxDepth+1, 0, 0)), false},
		{"definite within indefinite", []byte{0x30, 0x80, 0x30, 2, 5, 0, 0, 0}, true},
		{"indefinite beyond its parent", []byte{0x30, 4, 0x30, 0x80, 5, 0, 0, 0}, false},
		{"child beyond its parent", []byte{0x30, 3, 4, 2, 0, 0}, false},
		{"too long", make([]byte, MaxMessage+1), false},
		{"length of four bytes", []byte{0x30, 0x84, 0, 0, 0, 0}, false},
		{"empty", nil, false},
	}
	for _, tt := range tests {
		if err := checkStructure(tt.ber); tt.ok != (err == nil) || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestConfigured: with the library's defaults nothing is encrypted. It changes
// variables of the process, so it is not parallel.
func TestConfigured(t *testing.T) {
	pkcs7.ContentEncryptionAlgorithm = pkcs7.EncryptionAlgorithmDESCBC
	defer func() {
		if err := Configure(); err != nil {
			t.Error(err)
		}
		if !Configured() {
			t.Error("Configure did not configure")
		}
	}()
	if Configured() {
		t.Error("DES passes as configured")
	}
	if _, err := Seal([]byte("x"), identities()[0].Certificate); !errors.Is(err, ErrConfiguration) {
		t.Errorf("Seal: %v", err)
	}
}
