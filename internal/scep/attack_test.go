package scep

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smallstep/scep"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/labca"
	"github.com/edgeclm/edgeclm/internal/pkimessage"
)

// attack enrols at a CA that misbehaves from the second enrolment on.
func attack(t *testing.T, h labca.Hostile) (*Client, []byte, enrol.Answer, error) {
	t.Helper()
	ca := newLab(t, labca.Options{})
	client := connect(t, ca.url, Fingerprint(ca.Root()))
	if _, err := client.Submit(context.Background(), submission(newCSR(t, nil, testChallenge))); err != nil {
		t.Fatal(err)
	}
	ca.SetHostile(h)
	csr := newCSR(t, nil, testChallenge)
	answer, err := client.Submit(context.Background(), submission(csr))
	if err != nil && answer.Certificates != nil {
		t.Error("certificates beside an error")
	}
	return client, csr, answer, err
}

// wantMismatch wants an authenticated answer that is refused for what it says.
func wantMismatch(t *testing.T, err error, what string) {
	t.Helper()
	var mismatch *enrol.CAMismatch
	if !errors.As(err, &mismatch) || !strings.Contains(mismatch.What, what) {
		t.Errorf("got %v, want a mismatch: %s", err, what)
	}
}

// wantUnauthenticated wants an answer of which nothing is concluded.
func wantUnauthenticated(t *testing.T, err error, what string) {
	t.Helper()
	var (
		mismatch  *enrol.CAMismatch
		rejection *enrol.CARejection
	)
	if !errors.Is(err, enrol.ErrCAUnauthenticated) || errors.As(err, &mismatch) || errors.As(err, &rejection) || !strings.Contains(err.Error(), what) {
		t.Errorf("got %v, want an unauthenticated answer: %s", err, what)
	}
}

// A CA (or whoever stole its RA key) certifies the device's names for a key
// that it holds itself, to impersonate the device.
func TestAttackOtherKey(t *testing.T) {
	t.Parallel()
	_, _, _, err := attack(t, labca.OtherKey)
	wantMismatch(t, err, "another key")
}

// The CA returns the certificate issued before, so that the device stays on an
// old key and validity.
func TestAttackPreviousCertificate(t *testing.T) {
	t.Parallel()
	_, _, _, err := attack(t, labca.Previous)
	wantMismatch(t, err, "another key")
}

// The answer is the RA's, but the certificate is by a CA that only bears the
// name of ours. The runner's pre-verification refuses it.
func TestAttackForeignIssuer(t *testing.T) {
	t.Parallel()
	client, csr, answer, err := attack(t, labca.ForeignIssuer)
	if err != nil {
		t.Fatal(err)
	}
	_, err = preVerify(t, client, csr, answer)
	wantMismatch(t, err, "foreign issuer")
}

// The certificate is the right one but has expired. The dates reach the runner
// unchanged, with the CA's own clock to judge them by.
func TestAttackExpired(t *testing.T) {
	t.Parallel()
	client, csr, answer, err := attack(t, labca.Expired)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := preVerify(t, client, csr, answer)
	if err != nil {
		t.Fatal(err)
	}
	if !leaf.NotAfter.Before(answer.Date) {
		t.Errorf("NotAfter %v is not before the CA's date %v", leaf.NotAfter, answer.Date)
	}
}

// The certificate is for the device's key but under another name.
func TestAttackOtherNames(t *testing.T) {
	t.Parallel()
	client, csr, answer, err := attack(t, labca.OtherNames)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = preVerify(t, client, csr, answer); !errors.Is(err, enrol.ErrCertificate) {
		t.Errorf("got %v", err)
	}
}

// The CA makes a CA of the device, which could then issue certificates.
func TestAttackCACertificate(t *testing.T) {
	t.Parallel()
	client, csr, answer, err := attack(t, labca.CACertificate)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = preVerify(t, client, csr, answer); !errors.Is(err, enrol.ErrCertificate) {
		t.Errorf("got %v", err)
	}
}

// An answer of the right signer carries another recipientNonce: it was made for
// another request.
func TestAttackWrongNonce(t *testing.T) {
	t.Parallel()
	_, _, _, err := attack(t, labca.WrongNonce)
	wantUnauthenticated(t, err, "recipientNonce")
}

// An answer of the right signer is about another transaction.
func TestAttackWrongTransaction(t *testing.T) {
	t.Parallel()
	_, _, _, err := attack(t, labca.WrongTransaction)
	wantUnauthenticated(t, err, "transaction")
}

// The right signer's message is no answer but a request.
func TestAttackWrongType(t *testing.T) {
	t.Parallel()
	_, _, _, err := attack(t, labca.WrongType)
	wantUnauthenticated(t, err, "message type")
}

// The right signer's answer has a status that does not exist.
func TestAttackWrongStatus(t *testing.T) {
	t.Parallel()
	_, _, _, err := attack(t, labca.WrongStatus)
	wantUnauthenticated(t, err, "pkiStatus")
}

// The answer is signed by somebody who is neither the CA nor its RA.
func TestAttackForeignSigner(t *testing.T) {
	t.Parallel()
	_, _, _, err := attack(t, labca.ForeignSigner)
	wantUnauthenticated(t, err, "which is none of")
}

// The answer names the RA as its signer and encloses a certificate with the
// RA's issuer and serial number, but for the attacker's key.
func TestAttackForgedSigner(t *testing.T) {
	t.Parallel()
	_, _, _, err := attack(t, labca.ForgedSigner)
	wantUnauthenticated(t, err, "not signed as it should be")
}

// The answer has two signatures; libraries check them all but read the
// attributes of one.
func TestAttackTwoSigners(t *testing.T) {
	t.Parallel()
	_, _, _, err := attack(t, labca.TwoSigners)
	wantUnauthenticated(t, err, "2 signers")
}

// The RA's answer is encrypted to somebody else, as that to a request of the
// attacker's own would be. It must not count against the device.
func TestAttackOtherRecipient(t *testing.T) {
	t.Parallel()
	_, _, _, err := attack(t, labca.OtherRecipient)
	wantUnauthenticated(t, err, pkimessage.ErrEnvelope.Error())
}

// The RA's answer holds no certificates.
func TestAttackBadContent(t *testing.T) {
	t.Parallel()
	_, _, _, err := attack(t, labca.BadContent)
	wantMismatch(t, err, "no certificate")
}

// Bytes of the answer were changed on the way.
func TestAttackTampered(t *testing.T) {
	t.Parallel()
	_, _, _, err := attack(t, labca.Tampered)
	wantUnauthenticated(t, err, "SCEP message")
}

// The answer was cut off on the way.
func TestAttackTruncated(t *testing.T) {
	t.Parallel()
	_, _, _, err := attack(t, labca.Truncated)
	wantUnauthenticated(t, err, "malformed")
}

// The answer is three bytes on which an older PKCS#7 library panics.
func TestAttackGarbage(t *testing.T) {
	t.Parallel()
	_, _, _, err := attack(t, labca.Garbage)
	wantUnauthenticated(t, err, "malformed")
}

// The answer is eight megabytes long, to exhaust memory.
func TestAttackOversized(t *testing.T) {
	t.Parallel()
	_, _, _, err := attack(t, labca.Oversized)
	if !errors.Is(err, enrol.ErrCAUnavailable) || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("got %v", err)
	}
}

// The CA redirects requests, which carry the encrypted challenge, to another
// server.
func TestAttackRedirect(t *testing.T) {
	t.Parallel()
	_, _, _, err := attack(t, labca.Redirect)
	if !errors.Is(err, enrol.ErrCAUnavailable) || !strings.Contains(err.Error(), "redirects to another server") {
		t.Errorf("got %v", err)
	}
}

// The CA never answers. The context of the caller ends the wait.
func TestAttackSlow(t *testing.T) {
	t.Parallel()
	ca := newLab(t, labca.Options{Hostile: labca.Slow})
	client := connect(t, ca.url, Fingerprint(ca.Root()))
	for _, client.post = range []bool{true, false} {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		_, err := client.Submit(ctx, submission(newCSR(t, nil, testChallenge)))
		cancel()
		if !errors.Is(err, enrol.ErrCAUnavailable) || !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "message=") {
			t.Errorf("POST %v: %v", client.post, err)
		}
	}
}

// middle is somebody between client and CA.
type middle struct {
	ca   string
	mu   sync.Mutex
	seen [][]byte // answers of the CA
	// change replaces a request; answer replaces the answer.
	change func(request []byte) []byte
	answer func(seen [][]byte) []byte
}

func (m *middle) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.change != nil && r.Method == http.MethodPost {
		body = m.change(body)
	}
	u, _ := url.Parse(m.ca)
	u.RawQuery = r.URL.RawQuery
	req, err := http.NewRequestWithContext(r.Context(), r.Method, u.String(), bytes.NewReader(body))
	if err != nil {
		return
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return
	}
	defer func() { _ = res.Body.Close() }()
	if body, err = io.ReadAll(res.Body); err != nil {
		return
	}
	if r.Method == http.MethodPost {
		m.seen = append(m.seen, body)
		if m.answer != nil {
			body = m.answer(m.seen)
		}
	}
	w.Header().Set("Content-Type", res.Header.Get("Content-Type"))
	w.WriteHeader(res.StatusCode)
	_, _ = w.Write(body)
}

// Somebody on the path answers with a genuine answer of the CA to an earlier
// request of the same transaction.
func TestAttackReplay(t *testing.T) {
	t.Parallel()
	ca := newLab(t, labca.Options{})
	m := &middle{ca: ca.url, answer: func(seen [][]byte) []byte { return seen[0] }}
	server := httptest.NewServer(m)
	t.Cleanup(server.Close)
	client := connect(t, server.URL, Fingerprint(ca.Root()))
	s := submission(newCSR(t, nil, testChallenge))
	if _, err := client.Submit(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	_, err := client.Submit(context.Background(), s)
	wantUnauthenticated(t, err, "replay")
}

// Somebody on the path who knows a challenge puts a request of his own in the
// place of ours, with our nonce and transaction ID. The CA's answer is genuine,
// but it is not ours, so it must not count against the device.
func TestAttackAnswerToAnotherRequest(t *testing.T) {
	t.Parallel()
	ca := newLab(t, labca.Options{})
	attacker, err := GenerateRA(rand.Reader, "attacker")
	if err != nil {
		t.Fatal(err)
	}
	csr := newCSR(t, nil, testChallenge)
	m := &middle{ca: ca.url, change: func(request []byte) []byte {
		ours, err := pkimessage.ParseRequest(request)
		if err != nil {
			t.Error(err)
			return nil
		}
		content, err := pkimessage.Seal(csr, ca.RA())
		if err != nil {
			t.Error(err)
		}
		forged, err := pkimessage.Sign(&pkimessage.Message{
			Type: scep.PKCSReq, TransactionID: ours.TransactionID, SenderNonce: ours.SenderNonce, Content: content,
		}, pkimessage.Signer{Certificate: attacker.Certificate, Key: attacker.Key})
		if err != nil {
			t.Error(err)
		}
		return forged
	}}
	server := httptest.NewServer(m)
	t.Cleanup(server.Close)
	client := connect(t, server.URL, Fingerprint(ca.Root()))
	_, err = client.Submit(context.Background(), submission(newCSR(t, nil, testChallenge)))
	wantUnauthenticated(t, err, pkimessage.ErrEnvelope.Error())
}
