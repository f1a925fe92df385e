package scep

import (
	"bytes"
	"context"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/smallstep/scep"

	"github.com/edgeclm/edgeclm/internal/labca"
	"github.com/edgeclm/edgeclm/internal/pkimessage"
	"github.com/edgeclm/edgeclm/internal/testpeer"
)

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
	if m.TransactionID != "00ff" || m.MessageType != scep.PKCSReq || !bytes.Equal(m.SenderNonce, nonce) ||
		!bytes.Equal(m.RawDecrypted, csr) || m.ChallengePassword != testChallenge {
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
	if m.PKIStatus != scep.SUCCESS || !bytes.Equal(m.RecipientNonce, request.SenderNonce) ||
		!bytes.Equal(m.Certificate.RawSubjectPublicKeyInfo, csr.RawSubjectPublicKeyInfo) {
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
			opensslVerify(t, ca.Root(), []*x509.Certificate{ca.Issuing()}, peerEnrol(t, client, key))
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
