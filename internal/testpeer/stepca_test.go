package testpeer_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/smallstep/pkcs7"

	"github.com/edgeclm/edgeclm/internal/labpeer"
	"github.com/edgeclm/edgeclm/internal/testpeer"
)

// The two shapes of a SCEP service, as a client sees them (RFC 8894, section
// 4.2.1): the CA alone, and an RA before its CA.
func TestStepCA(t *testing.T) {
	for _, test := range []struct {
		name    string
		options labpeer.StepCAOptions
		content string // type of the answer to GetCACert
		certs   func(*labpeer.StepCARunning) []*x509.Certificate
	}{
		{
			"CA", labpeer.StepCAOptions{Challenge: "secret"}, "application/x-x509-ca-cert",
			func(ca *labpeer.StepCARunning) []*x509.Certificate { return []*x509.Certificate{ca.Issuing} },
		},
		{
			"RA", labpeer.StepCAOptions{Challenge: "secret", SeparateRA: true}, "application/x-x509-ca-ra-cert",
			func(ca *labpeer.StepCARunning) []*x509.Certificate {
				return []*x509.Certificate{ca.Recipient, ca.Issuing}
			},
		},
		{
			"RA and root", labpeer.StepCAOptions{SeparateRA: true, IncludeRoot: true}, "application/x-x509-ca-ra-cert",
			func(ca *labpeer.StepCARunning) []*x509.Certificate {
				return []*x509.Certificate{ca.Recipient, ca.Issuing, ca.Root}
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ca := testpeer.StepCA(t, test.options)

			_, capabilities := get(t, ca.URL+"?operation=GetCACaps")
			t.Logf("GetCACaps: %q", capabilities)
			for _, capability := range []string{"AES", "SHA-256", "POSTPKIOperation", "SCEPStandard"} {
				if !slices.Contains(strings.Fields(string(capabilities)), capability) {
					t.Errorf("GetCACaps lacks %s", capability)
				}
			}

			content, body := get(t, ca.URL+"?operation=GetCACert")
			t.Logf("GetCACert: %s, %d bytes", content, len(body))
			if content != test.content {
				t.Errorf("GetCACert gives %s, want %s", content, test.content)
			}
			compareCertificates(t, parseCertificates(t, content, body), test.certs(ca))
			checkHierarchy(t, ca, test.options.SeparateRA)
		})
	}
}

func get(t *testing.T, url string) (content string, body []byte) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %s", url, response.Status, body)
	}
	return response.Header.Get("Content-Type"), body
}

func parseCertificates(t *testing.T, content string, body []byte) []*x509.Certificate {
	t.Helper()
	if content == "application/x-x509-ca-cert" {
		cert, err := x509.ParseCertificate(body)
		if err != nil {
			t.Fatal(err)
		}
		return []*x509.Certificate{cert}
	}
	p7, err := pkcs7.Parse(body)
	if err != nil {
		t.Fatal(err)
	}
	return p7.Certificates
}

func compareCertificates(t *testing.T, got, want []*x509.Certificate) {
	t.Helper()
	describe := func(certs []*x509.Certificate) (lines []string) {
		for _, c := range certs {
			lines = append(lines, fmt.Sprintf("%s, %s, serial %x", c.Subject, c.PublicKeyAlgorithm, c.SerialNumber))
		}
		return lines
	}
	for _, line := range describe(got) {
		t.Log("  ", line)
	}
	equal := slices.EqualFunc(got, want, func(a, b *x509.Certificate) bool { return bytes.Equal(a.Raw, b.Raw) })
	if !equal {
		t.Errorf("got %q, want %q", describe(got), describe(want))
	}
}

// checkHierarchy checks that the chain is sound and that the recipient has the
// RSA key that SCEP needs.
func checkHierarchy(t *testing.T, ca *labpeer.StepCARunning, separateRA bool) {
	t.Helper()
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(ca.Root)
	intermediates.AddCert(ca.Issuing)
	if _, err := ca.Recipient.Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates}); err != nil {
		t.Errorf("recipient: %v", err)
	}
	if _, ok := ca.Recipient.PublicKey.(*rsa.PublicKey); !ok {
		t.Errorf("recipient has a %T", ca.Recipient.PublicKey)
	}
	if _, ecdsaCA := ca.Issuing.PublicKey.(*ecdsa.PublicKey); ecdsaCA != separateRA {
		t.Errorf("issuing CA has a %T", ca.Issuing.PublicKey)
	}
}

func TestStepCAEnds(t *testing.T) {
	ca := testpeer.StepCA(t, labpeer.StepCAOptions{})
	ca.Stop()
	ca.Stop() // harmless again
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, ca.URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if response, err := http.DefaultClient.Do(request); err == nil {
		response.Body.Close()
		t.Errorf("a stopped CA answers %s", response.Status)
	}
}

func TestStepCAFilesAreSecret(t *testing.T) {
	dir := t.TempDir() + "/ca"
	binary := testpeer.Look(t, labpeer.StepCA)
	ca, err := labpeer.StartStepCA(t.Context(), dir, binary, labpeer.StepCAOptions{Challenge: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	defer ca.Stop()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s is %v", entry.Name(), info.Mode())
		}
	}
}
