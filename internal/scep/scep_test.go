package scep

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/smallstep/scep/x509util"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/labca"
)

const testChallenge = "correct horse"

func TestMain(m *testing.M) {
	if err := Configure(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// testRA is one RA key for all tests: making one is slow.
var testRA = sync.OnceValue(func() RA {
	ra, err := GenerateRA(rand.Reader, "clm-test")
	if err != nil {
		panic(err)
	}
	return ra
})

// lab is a lab CA behind HTTP.
type lab struct {
	*labca.CA
	url string
}

func newLab(t testing.TB, o labca.Options) lab {
	t.Helper()
	if o.Challenge == nil {
		o.Challenge = []byte(testChallenge)
	}
	ca, err := labca.Open(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(ca.Handler())
	t.Cleanup(func() {
		server.Close()
		if err := ca.Close(); err != nil {
			t.Error(err)
		}
	})
	return lab{CA: ca, url: server.URL + labca.Path}
}

// connect does what `ca add` and a later start do.
func connect(t testing.TB, url, fingerprint string, vouched ...*x509.Certificate) *Client {
	t.Helper()
	info, err := Fetch(context.Background(), url, HTTPOptions{}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := SelectAnchor(info.Certificates, vouched, fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	config := Config{
		URL: url, Anchor: authority.Anchor.Raw, Capabilities: info.Capabilities, RA: testRA(),
		Challenge: func(context.Context, string) ([]byte, error) { return []byte(testChallenge), nil },
		HTTP:      HTTPOptions{Timeout: 10 * time.Second},
	}
	for _, c := range authority.Certificates() {
		config.Certificates = append(config.Certificates, c.Raw)
	}
	client, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// newCSR makes a device's CSR with a fresh key.
func newCSR(t testing.TB, key crypto.Signer, challenge string) []byte {
	t.Helper()
	if key == nil {
		fresh, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		key = fresh
	}
	usages, err := enrol.UsageExtensions([]string{"digitalSignature"}, []string{"clientAuth"})
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509util.CreateCertificateRequest(rand.Reader, &x509util.CertificateRequest{
		CertificateRequest: x509.CertificateRequest{
			Subject: pkix.Name{CommonName: "plc-0001"}, DNSNames: []string{"plc-0001"}, ExtraExtensions: usages,
		},
		ChallengePassword: challenge,
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func parsed(t testing.TB, csr []byte) *x509.CertificateRequest {
	t.Helper()
	out, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// submission makes one with a transaction ID of its own.
func submission(csr []byte) enrol.Submission {
	sum := sha256.Sum256(csr)
	return enrol.Submission{TransactionID: fmt.Sprintf("%x", sum[:16]), CSR: csr}
}

// preVerify does what the runner does with an answer.
func preVerify(t testing.TB, client *Client, csr []byte, answer enrol.Answer) (*x509.Certificate, error) {
	t.Helper()
	wanted := parsed(t, csr)
	sans, err := enrol.AlternativeNames(wanted.DNSNames, wanted.IPAddresses, wanted.URIs, nil)
	if err != nil {
		t.Fatal(err)
	}
	e := &enrol.Enrolment{
		SPKIHash: sha256.Sum256(wanted.RawSubjectPublicKeyInfo),
		Subject:  enrol.SubjectAttributes(wanted.Subject), SANs: sans,
		KeyUsage: []string{"digitalSignature"}, ExtKeyUsage: []string{"clientAuth"},
	}
	leaf, _, err := enrol.PreVerify(e, answer.Certificates, client.Anchor())
	return leaf, err
}

func TestEnrol(t *testing.T) {
	t.Parallel()
	for _, layout := range []labca.Layout{labca.LayoutRA, labca.LayoutSingle} {
		for _, key := range []labca.KeyType{labca.KeyRSA, labca.KeyECDSA} {
			if layout == labca.LayoutSingle && key == labca.KeyECDSA {
				continue
			}
			t.Run(fmt.Sprint(layout, "/", key), func(t *testing.T) {
				t.Parallel()
				ca := newLab(t, labca.Options{Layout: layout, Key: key})
				anchor := ca.Root()
				vouched := []*x509.Certificate{ca.Root()}
				client := connect(t, ca.url, Fingerprint(anchor), vouched...)
				for _, csrKey := range testKeys(t) {
					csr := newCSR(t, csrKey, testChallenge)
					answer, err := client.Submit(context.Background(), submission(csr))
					if err != nil {
						t.Fatal(err)
					}
					if _, err := preVerify(t, client, csr, answer); err != nil {
						t.Fatal(err)
					}
					if answer.Pending || answer.Date.IsZero() {
						t.Errorf("pending %v, date %v", answer.Pending, answer.Date)
					}
				}
			})
		}
	}
}

// testKeys are device keys of the kinds that every CA takes.
func testKeys(t testing.TB) []crypto.Signer {
	t.Helper()
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsa2048, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return []crypto.Signer{p256, p384, rsa2048}
}
