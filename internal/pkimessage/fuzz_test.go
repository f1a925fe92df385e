package pkimessage

import (
	"bytes"
	"crypto/x509"
	"errors"
	"testing"
)

// seeds are messages of each kind, whole and spoilt.
func seeds(f *testing.F) {
	ids := identities()
	f.Add(mustSign(f, reply(), ids[0]))
	f.Add(mustSign(f, reply(), ids[0], ids[1]))
	sealed, err := Seal([]byte("a PKCS#10"), ids[0].Certificate)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add(shortened(f, sealed))
	f.Add(overPadded(f, ids[0]))
	certs, err := CertsOnly(ids[0].Certificate, ids[1].Certificate)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(certs)
	f.Add([]byte{0x30, 0x80, 0x24})
	f.Add(bytes.Repeat([]byte{0x30, 0x80}, 200))
	f.Add([]byte{0x30, 0x80, 0x30, 2, 5, 0, 0, 0})
}

// FuzzParse: whatever is parsed as a reply is signed by whom we trust, and what
// is parsed as a request encloses its signer.
func FuzzParse(f *testing.F) {
	seeds(f)
	by := []*x509.Certificate{identities()[0].Certificate}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseReply(b, by)
		if err == nil && !m.Signer.Equal(by[0]) {
			t.Fatal("signed by somebody else")
		}
		if err != nil && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrSignature) {
			t.Fatalf("unclassified: %v", err)
		}
		if m, err := ParseRequest(b); err == nil && m.Signer == nil {
			t.Fatal("signed by nobody")
		}
	})
}

// FuzzCertsOnly: certificates that are parsed are the same when encoded again.
func FuzzCertsOnly(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := ParseCertsOnly(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("unclassified: %v", err)
			}
			return
		}
		der, err := CertsOnly(got...)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseCertsOnly(der)
		if err != nil || len(again) != len(got) {
			t.Fatalf("%d certificates, then %d, %v", len(got), len(again), err)
		}
	})
}

// FuzzOpen: an envelope fails with nothing but ErrEnvelope.
func FuzzOpen(f *testing.F) {
	seeds(f)
	id := identities()[0]
	f.Fuzz(func(t *testing.T, b []byte) {
		content, err := Open(b, id.Certificate, decrypter(id))
		if err != nil && (err.Error() != ErrEnvelope.Error() || content != nil) {
			t.Fatalf("%q, %v", content, err)
		}
	})
}
