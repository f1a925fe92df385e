package scep

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/labpeer"
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
				leaf := peerEnrol(t, client, key)
				serials = append(serials, leaf.SerialNumber.Text(16))
				opensslVerify(t, ca.Root, []*x509.Certificate{ca.Issuing}, leaf)
			}
			renewed := peerEnrol(t, client, nil) // a renewal is an enrolment of a new key
			if slices.Contains(serials, renewed.SerialNumber.Text(16)) {
				t.Error("the same certificate again")
			}
		})
	}
}

func peerEnrol(t *testing.T, client *Client, key crypto.Signer) *x509.Certificate {
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
	peerEnrol(t, client, nil)
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

// micromdm starts a real micromdm SCEP server and returns its URL.
func micromdm(t *testing.T) string {
	t.Helper()
	program := testpeer.Look(t, labpeer.SCEPServer)
	depot := filepath.Join(t.TempDir(), "depot")
	run(t, program, "ca", "-init", "-keySize", "2048", "-depot", depot)
	p, err := labpeer.StartProcess(context.WithoutCancel(t.Context()), program,
		[]string{"-depot", depot, "-http-addr", "127.0.0.1:0", "-challenge", testChallenge, "-allowrenew", "0"}, nil, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		listeners, err := labpeer.Listeners(p.PID())
		if err == nil && len(listeners) > 0 {
			return "http://" + listeners[0].String() + "/scep"
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("the SCEP server does not listen")
	return ""
}

// TestMicroMDM enrols and renews at a real micromdm SCEP server, which has one
// CA certificate for everything.
func TestMicroMDM(t *testing.T) {
	t.Parallel()
	client := connect(t, micromdm(t), "")
	for _, key := range testKeys(t) {
		peerEnrol(t, client, key)
	}
	peerEnrol(t, client, nil)

	_, err := client.Submit(context.Background(), submission(newCSR(t, nil, "wrong guess")))
	var rejection *enrol.CARejection
	if !errors.As(err, &rejection) || rejection.FailInfo != "badRequest" || !strings.Contains(rejection.Text, "challenge") {
		t.Errorf("wrong challenge: %v", err)
	}

	// It knows no CertPoll, so a request taken for pending is repeated.
	s := submission(newCSR(t, nil, testChallenge))
	s.Pending = true
	if answer, err := client.Submit(context.Background(), s); err != nil || answer.Pending {
		t.Errorf("pending: %+v, %v", answer, err)
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
