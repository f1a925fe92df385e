package scep

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"slices"
	"testing"
	"time"
)

func TestRA(t *testing.T) {
	t.Parallel()
	ra := testRA()
	c := ra.Certificate
	if c.Subject.CommonName != "clm-test" || ra.Key.N.BitLen() != 2048 || c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) != nil {
		t.Errorf("%+v", c)
	}
	for _, clock := range []time.Time{time.Unix(0, 0), time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)} {
		if clock.Before(c.NotBefore) || clock.After(c.NotAfter) {
			t.Errorf("not valid at %v", clock)
		}
	}
	b, err := ra.MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseRA(b)
	if err != nil || !got.Key.Equal(ra.Key) || !got.Certificate.Equal(c) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestParseRARefusals(t *testing.T) {
	t.Parallel()
	ra := testRA()
	good, err := ra.MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	key, rest := pem.Decode(good)
	certificate, _ := pem.Decode(rest)
	other := newEntity(t, "other", 0, true, nil)
	ecdsaKey, err := x509.MarshalPKCS8PrivateKey(newEntity(t, "ecdsa", 0, false, nil).key)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}) }
	for name, b := range map[string][]byte{
		"nothing":                nil,
		"no PEM":                 []byte("secret"),
		"the certificate only":   pem.EncodeToMemory(certificate),
		"the key only":           pem.EncodeToMemory(key),
		"a third block":          append(bytes.Clone(good), pem.EncodeToMemory(certificate)...),
		"trailing text":          append(bytes.Clone(good), "text"...),
		"another's certificate":  slices.Concat(pem.EncodeToMemory(key), block(pemCertificate, other.Raw)),
		"an ECDSA key":           slices.Concat(block(pemKey, ecdsaKey), pem.EncodeToMemory(certificate)),
		"a key that is no key":   slices.Concat(block(pemKey, []byte("x")), pem.EncodeToMemory(certificate)),
		"a certificate that not": slices.Concat(pem.EncodeToMemory(key), block(pemCertificate, []byte("x"))),
		"too long":               append(bytes.Clone(good), bytes.Repeat([]byte("\n"), maxRAFile)...),
	} {
		if _, err := ParseRA(b); !errors.Is(err, ErrRA) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (RA{Key: weak, Certificate: &x509.Certificate{PublicKey: weak.Public()}}).check(); !errors.Is(err, ErrRA) {
		t.Errorf("RSA-1024: %v", err)
	}
}
