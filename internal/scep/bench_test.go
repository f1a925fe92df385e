package scep

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/labca"
	"github.com/edgeclm/edgeclm/internal/labpeer"
	"github.com/edgeclm/edgeclm/internal/testpeer"
)

// BenchmarkSubmit measures one delegated enrolment against the lab CA in the
// same process, over HTTP on loopback, and holds it against the bare cost of
// the private RSA operations in it: two of the client (sign, decrypt). The lab
// CA spends as many itself.
func BenchmarkSubmit(b *testing.B) {
	ca := newLab(b, labca.Options{})
	submit(b, connect(b, ca.url, Fingerprint(ca.Root())))
}

// BenchmarkSubmitStepCA measures the same against a real step-ca.
func BenchmarkSubmitStepCA(b *testing.B) {
	ca := testpeer.StepCA(b, labpeer.StepCAOptions{SeparateRA: true, Challenge: testChallenge})
	submit(b, connect(b, ca.URL, Fingerprint(ca.Issuing)))
}

// submit measures enrolments and pairs of private operations by turns, so that
// what else the machine does disturbs both.
func submit(b *testing.B, client *Client) {
	b.Helper()
	s := submission(newCSR(b, nil, testChallenge))
	operations := rsaPair(b)
	var enrolments, pairs time.Duration
	for b.Loop() {
		begin := time.Now()
		if _, err := client.Submit(context.Background(), s); err != nil {
			b.Fatal(err)
		}
		enrolments += time.Since(begin)
		b.StopTimer()
		begin = time.Now()
		operations()
		pairs += time.Since(begin)
		b.StartTimer()
	}
	b.ReportMetric(enrolments.Seconds()/pairs.Seconds(), "x-two-RSA-ops")
	b.ReportMetric(pairs.Seconds()*1e9/float64(b.N), "ns/two-RSA-ops")
}

// rsaPair returns a function that signs and decrypts once with RSA-2048.
func rsaPair(b *testing.B) func() {
	b.Helper()
	key := testRA().Key
	digest := sha256.Sum256(nil)
	sealed, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &key.PublicKey, digest[:], nil)
	if err != nil {
		b.Fatal(err)
	}
	return func() {
		if _, err := key.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
			b.Fatal(err)
		}
		if _, err := key.Decrypt(rand.Reader, sealed, &rsa.OAEPOptions{Hash: crypto.SHA256}); err != nil {
			b.Fatal(err)
		}
	}
}
