package enrol_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
)

func wanted() *enrol.Enrolment {
	return &enrol.Enrolment{
		Subject: []fleet.Attribute{{Type: "CN", Value: "plc-1"}, {Type: "O", Value: "Plant"}},
		SANs:    []fleet.Name{{Kind: fleet.KindURI, Value: "urn:plant:plc-1"}, {Kind: fleet.KindDNS, Value: "plc-1"}},
	}
}

func csrTemplate() *x509.CertificateRequest {
	return &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "plc-1", Organization: []string{"Plant"}},
		DNSNames: []string{"plc-1"}, URIs: []*url.URL{{Scheme: "urn", Opaque: "plant:plc-1"}},
	}
}

func TestCheckCSR(t *testing.T) {
	p256 := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	p521 := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
	t.Setenv("GODEBUG", "rsa1024min=0")
	rsa1024 := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 1024))
	for name, tt := range map[string]struct {
		key    crypto.Signer
		change func(*x509.CertificateRequest, *enrol.Enrolment)
		mangle func([]byte) []byte
		want   string // "": accepted
	}{
		"as asked":          {key: p256},
		"the key asked for": {key: p256, change: func(_ *x509.CertificateRequest, e *enrol.Enrolment) { e.Key = fleet.ECDSAP256 }},
		"another key": {key: p256, want: "its key is ecdsa-p256, wanted rsa-2048",
			change: func(_ *x509.CertificateRequest, e *enrol.Enrolment) { e.Key = fleet.RSA2048 }},
		"an unknown curve":  {key: p521, want: "P-521"},
		"RSA-1024 unasked":  {key: rsa1024, want: "rsa-1024, wanted any but rsa-1024"},
		"RSA-1024 for labs": {key: rsa1024, change: func(_ *x509.CertificateRequest, e *enrol.Enrolment) { e.Key = fleet.RSA1024 }},
		"another common name": {key: p256, want: "its subject is",
			change: func(r *x509.CertificateRequest, _ *enrol.Enrolment) { r.Subject.CommonName = "plc-2" }},
		"one more attribute": {key: p256, want: "its subject is",
			change: func(r *x509.CertificateRequest, _ *enrol.Enrolment) { r.Subject.SerialNumber = "7" }},
		"one more name": {key: p256, want: "its alternative names are",
			change: func(r *x509.CertificateRequest, _ *enrol.Enrolment) { r.DNSNames = append(r.DNSNames, "evil") }},
		"a missing name": {key: p256, want: "its alternative names are",
			change: func(r *x509.CertificateRequest, _ *enrol.Enrolment) { r.URIs = nil }},
		"an e-mail address": {key: p256, want: "e-mail",
			change: func(r *x509.CertificateRequest, _ *enrol.Enrolment) { r.EmailAddresses = []string{"a@b.example"} }},
		"a broken signature": {key: p256, want: "self-signature", mangle: func(b []byte) []byte { b[len(b)-1] ^= 1; return b }},
		"trailing bytes":     {key: p256, want: "trailing", mangle: func(b []byte) []byte { return append(b, 0) }},
		"oversized":          {key: p256, want: "at most", mangle: func([]byte) []byte { return make([]byte, enrol.MaxCSR+1) }},
		"empty":              {key: p256, want: "not acceptable", mangle: func([]byte) []byte { return nil }},
	} {
		t.Run(name, func(t *testing.T) {
			e, template := wanted(), csrTemplate()
			if tt.change != nil {
				tt.change(template, e)
			}
			der := must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, template, tt.key))
			if tt.mangle != nil {
				der = tt.mangle(der)
			}
			_, err := enrol.CheckCSR(der, e)
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, enrol.ErrCSR) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestUsageExtensions(t *testing.T) {
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := csrTemplate()
	template.ExtraExtensions = must[[]pkix.Extension](t)(enrol.UsageExtensions(
		[]string{"digitalSignature", "keyEncipherment"}, []string{"serverAuth", "clientAuth"}))
	csr := must[*x509.CertificateRequest](t)(enrol.ParseCSR(must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, template, key))))
	found := 0
	for _, ext := range csr.Extensions {
		switch ext.Id.String() {
		case "2.5.29.15":
			var bits asn1.BitString
			if _, err := asn1.Unmarshal(ext.Value, &bits); err != nil || bits.At(0) != 1 || bits.At(2) != 1 || bits.BitLength != 3 {
				t.Errorf("key usage %x", ext.Value)
			}
			found++
		case "2.5.29.37":
			var oids []asn1.ObjectIdentifier
			if _, err := asn1.Unmarshal(ext.Value, &oids); err != nil || len(oids) != 2 || oids[1].String() != "1.3.6.1.5.5.7.3.2" {
				t.Errorf("extended key usage %v", oids)
			}
			found++
		}
	}
	if found != 2 {
		t.Errorf("%d extensions", found)
	}
	for _, bad := range [][2][]string{{{"all"}, nil}, {nil, {"any"}}} {
		if _, err := enrol.UsageExtensions(bad[0], bad[1]); !errors.Is(err, fleet.ErrProfile) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// TestAnchorAsLeafRefused: a CA that answers with its own root, for a device
// that has the root's key, is refused and panics nobody.
func TestAnchorAsLeafRefused(t *testing.T) {
	ca := newCA(&world{t: t}, "CA")
	if _, err := enrol.VerifyChain(ca.Root.Raw, ca.Root, nil); !errors.Is(err, enrol.ErrCertificate) {
		t.Error(err)
	}
}

func FuzzParseCSR(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, csrTemplate(), key)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(der)
	f.Fuzz(func(t *testing.T, der []byte) {
		csr, err := enrol.CheckCSR(der, wanted())
		if err == nil && csr.CheckSignature() != nil {
			t.Error("accepted without a proof of possession")
		}
	})
}

func FuzzParseChain(f *testing.F) {
	w := &world{t: &testing.T{}}
	ca := newCA(w, "CA")
	f.Add(ca.Root.Raw, []byte{0x30, 0})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		leaf, others, err := enrol.ParseChain([][]byte{a, b}, [32]byte{})
		if err == nil && (leaf == nil || len(others) > 1) {
			t.Error("no certificate, no error")
		}
	})
}
