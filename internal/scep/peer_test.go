package scep

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/scep"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/labca"
	"github.com/edgeclm/edgeclm/internal/labpeer"
	"github.com/edgeclm/edgeclm/internal/pkimessage"
	"github.com/edgeclm/edgeclm/internal/testpeer"
)

// TestStepCA enrols and renews at a real step-ca, whose recipient is the issuing
// CA's own certificate or that of a separate RA, and whose root is sent or has
// to be given.
func TestStepCA(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]labpeer.StepCAOptions{
		"own certificate":           {},
		"own certificate, root too": {IncludeRoot: true},
		"separate RA":               {SeparateRA: true},
		"separate RA, root too":     {SeparateRA: true, IncludeRoot: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o.Challenge = testChallenge
			ca := testpeer.StepCA(t, o)
			var vouched []*x509.Certificate
			if !o.IncludeRoot {
				vouched = []*x509.Certificate{ca.Root}
			}
			client := connect(t, ca.URL, Fingerprint(ca.Root), vouched...)
			if !client.authority.Recipient.Equal(ca.Recipient) || !client.post {
				t.Errorf("recipient %s, POST %v", client.authority.Recipient.Subject, client.post)
			}
			var serials []string
			for _, key := range testKeys(t) {
				leaf := stepCAEnrol(t, client, key)
				serials = append(serials, leaf.SerialNumber.Text(16))
				opensslVerify(t, ca.Root, []*x509.Certificate{ca.Issuing}, leaf)
			}
			renewed := stepCAEnrol(t, client, nil) // a renewal is an enrolment of a new key
			if slices.Contains(serials, renewed.SerialNumber.Text(16)) {
				t.Error("the same certificate again")
			}
		})
	}
}

func stepCAEnrol(t *testing.T, client *Client, key crypto.Signer) *x509.Certificate {
	t.Helper()
	csr := newCSR(t, key, testChallenge)
	answer, err := client.Submit(context.Background(), submission(csr))
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := preVerify(t, client, csr, answer)
	if err != nil {
		t.Fatal(err)
	}
	if answer.Date.IsZero() {
		t.Error("no date")
	}
	return leaf
}

// TestStepCAAnchors: the issuing CA can be the anchor; a root that step-ca does
// not send is missed with a hint at what it does send.
func TestStepCAAnchors(t *testing.T) {
	t.Parallel()
	ca := testpeer.StepCA(t, labpeer.StepCAOptions{SeparateRA: true, Challenge: testChallenge})
	client := connect(t, ca.URL, Fingerprint(ca.Issuing))
	stepCAEnrol(t, client, nil)
	info, err := Fetch(context.Background(), ca.URL, HTTPOptions{}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := SelectAnchor(info.Certificates, nil, Fingerprint(ca.Root)); !errors.Is(err, ErrFingerprint) || !strings.Contains(err.Error(), Fingerprint(ca.Issuing)) {
		t.Errorf("got %v", err)
	}
}

// TestStepCAWrongChallenge: a clear reason, without any challenge in it.
func TestStepCAWrongChallenge(t *testing.T) {
	t.Parallel()
	for _, separate := range []bool{false, true} {
		ca := testpeer.StepCA(t, labpeer.StepCAOptions{Challenge: testChallenge, SeparateRA: separate})
		client := connect(t, ca.URL, "", ca.Root)
		_, err := client.Submit(context.Background(), submission(newCSR(t, nil, "wrong guess")))
		var rejection *enrol.CARejection
		if !errors.As(err, &rejection) || rejection.FailInfo != "badRequest" || !strings.Contains(rejection.Text, "challenge") {
			t.Errorf("got %v", err)
		}
		if err != nil && (strings.Contains(err.Error(), "wrong guess") || strings.Contains(err.Error(), testChallenge)) {
			t.Errorf("the error tells a challenge: %v", err)
		}
	}
}

// TestSmallstepReadsOurRequest: a SCEP library that is not ours reads the
// request as we mean it.
func TestSmallstepReadsOurRequest(t *testing.T) {
	t.Parallel()
	recipient := newEntity(t, "recipient", caUsage, true, nil)
	client := &Client{authority: Authority{Recipient: recipient.Certificate}, signer: pkimessage.Signer{Certificate: testRA().Certificate, Key: testRA().Key}}
	csr, nonce := newCSR(t, nil, testChallenge), []byte("0123456789abcdef")
	der, err := client.request(scep.PKCSReq, "00ff", nonce, csr)
	if err != nil {
		t.Fatal(err)
	}
	m, err := scep.ParsePKIMessage(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.DecryptPKIEnvelope(recipient.Certificate, recipient.key); err != nil {
		t.Fatal(err)
	}
	if m.TransactionID != "00ff" || m.MessageType != scep.PKCSReq || string(m.SenderNonce) != string(nonce) ||
		string(m.RawDecrypted) != string(csr) || m.ChallengePassword != testChallenge {
		t.Errorf("%+v", m)
	}
}

// TestSmallstepReadsLabCA: the same library enrols at the lab CA.
func TestSmallstepReadsLabCA(t *testing.T) {
	t.Parallel()
	ca := newLab(t, labca.Options{})
	csr := parsed(t, newCSR(t, nil, testChallenge))
	request, err := scep.NewCSRRequest(csr, &scep.PKIMessage{
		MessageType: scep.PKCSReq, Recipients: []*x509.Certificate{ca.RA()}, SignerCert: testRA().Certificate, SignerKey: testRA().Key,
	})
	if err != nil {
		t.Fatal(err)
	}
	e, err := newEndpoint(ca.url, HTTPOptions{}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer e.http.CloseIdleConnections()
	res, err := e.pkiOperation(context.Background(), request.Raw, true)
	if err != nil {
		t.Fatal(err)
	}
	m, err := scep.ParsePKIMessage(res.body, scep.WithCACerts([]*x509.Certificate{ca.RA()}))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.DecryptPKIEnvelope(testRA().Certificate, testRA().Key); err != nil {
		t.Fatal(err)
	}
	if m.PKIStatus != scep.SUCCESS || string(m.RecipientNonce) != string(request.SenderNonce) || string(m.Certificate.RawSubjectPublicKeyInfo) != string(csr.RawSubjectPublicKeyInfo) {
		t.Errorf("%+v", m)
	}
}

// TestOpenSSLReadsOurRequest: openssl verifies the signature, decrypts the
// envelope and finds the CSR valid.
func TestOpenSSLReadsOurRequest(t *testing.T) {
	t.Parallel()
	openssl := testpeer.Look(t, "openssl")
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	// The recipient is an RA, whose key we have here.
	pemBytes, err := testRA().MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	client := &Client{authority: Authority{Recipient: testRA().Certificate}, signer: pkimessage.Signer{Certificate: testRA().Certificate, Key: testRA().Key}}
	request, err := client.request(scep.PKCSReq, "00ff", []byte("0123456789abcdef"), newCSR(t, nil, testChallenge))
	if err != nil {
		t.Fatal(err)
	}
	write(t, file("ra.pem"), pemBytes)
	write(t, file("request.der"), request)
	run(t, openssl, "cms", "-verify", "-inform", "DER", "-in", file("request.der"), "-noverify", "-binary", "-out", file("envelope.der"))
	run(t, openssl, "cms", "-decrypt", "-inform", "DER", "-in", file("envelope.der"), "-recip", file("ra.pem"), "-inkey", file("ra.pem"), "-binary", "-out", file("csr.der"))
	run(t, openssl, "req", "-verify", "-noout", "-inform", "DER", "-in", file("csr.der"))
}

// TestOpenSSLVerifiesLabCA: what the lab CA issues chains to its root.
func TestOpenSSLVerifiesLabCA(t *testing.T) {
	t.Parallel()
	for _, o := range []labca.Options{{Layout: labca.LayoutRA}, {Layout: labca.LayoutSingle}} {
		ca := newLab(t, o)
		client := connect(t, ca.url, "", ca.Root())
		for _, key := range testKeys(t) {
			opensslVerify(t, ca.Root(), []*x509.Certificate{ca.Issuing()}, stepCAEnrol(t, client, key))
		}
	}
}

// TestOpenSSLAnswers: openssl makes the CMS of a CA, in BER of indefinite
// length, which is read as well.
func TestOpenSSLAnswers(t *testing.T) {
	t.Parallel()
	openssl := testpeer.Look(t, "openssl")
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	pemBytes, err := testRA().MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	write(t, file("ra.pem"), pemBytes)
	write(t, file("content"), []byte("a certificate"))
	run(t, openssl, "cms", "-encrypt", "-stream", "-indef", "-aes128", "-binary", "-in", file("content"), "-outform", "DER", "-out", file("envelope.der"), file("ra.pem"))
	run(t, openssl, "cms", "-sign", "-stream", "-indef", "-nodetach", "-md", "sha256", "-binary", "-in", file("envelope.der"),
		"-signer", file("ra.pem"), "-inkey", file("ra.pem"), "-outform", "DER", "-out", file("signed.der"))
	signed, err := os.ReadFile(file("signed.der"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := pkimessage.ParseReply(signed, []*x509.Certificate{testRA().Certificate})
	if err != nil {
		t.Fatal(err)
	}
	content, err := pkimessage.Open(m.Content, testRA().Certificate, testRA().Key)
	if err != nil || string(content) != "a certificate" {
		t.Errorf("%q, %v", content, err)
	}
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, program string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
}

// opensslVerify holds a certificate against its root.
func opensslVerify(t *testing.T, root *x509.Certificate, chain []*x509.Certificate, leaf *x509.Certificate) {
	t.Helper()
	openssl := testpeer.Look(t, "openssl")
	dir := t.TempDir()
	file := func(name string, certificates ...*x509.Certificate) string {
		var b []byte
		for _, c := range certificates {
			b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
		}
		path := filepath.Join(dir, name)
		write(t, path, b)
		return path
	}
	run(t, openssl, "verify", "-x509_strict", "-CAfile", file("root.pem", root), "-untrusted", file("chain.pem", chain...), file("leaf.pem", leaf))
}
