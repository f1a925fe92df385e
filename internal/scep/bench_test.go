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
)

// BenchmarkSubmit measures one delegated enrolment against the lab CA in the
// same process, over HTTP on loopback, and holds it against the bare cost of
// the private RSA operations in it: two of the client (sign, decrypt). The lab
// CA spends as many itself.
func BenchmarkSubmit(b *testing.B) {
	ca := newLab(b, labca.Options{})
	client := connect(b, ca.url, Fingerprint(ca.Root()))
	s := submission(newCSR(b, nil, testChallenge))
	b.ResetTimer()
	for b.Loop() {
		if _, err := client.Submit(context.Background(), s); err != nil {
			b.Fatal(err)
		}
	}
	enrolment := b.Elapsed().Seconds() / float64(b.N)
	b.StopTimer()
	pair := rsaPair(b)
	b.ReportMetric(enrolment/pair, "x-two-RSA-ops")
	b.ReportMetric(pair*1e6, "us-two-RSA-ops")
}

// rsaPair returns the seconds that a signature and a decryption with RSA-2048
// take.
func rsaPair(b *testing.B) float64 {
	b.Helper()
	digest := sha256.Sum256(nil)
	sealed, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &testRA().Key.PublicKey, digest[:], nil)
	if err != nil {
		b.Fatal(err)
	}
	const rounds = 200
	begin := time.Now()
	for range rounds {
		if _, err := testRA().Key.Sign(rand.Reader, digest[:], crypto.SHA256); err != nil {
			b.Fatal(err)
		}
		if _, err := testRA().Key.Decrypt(rand.Reader, sealed, &rsa.OAEPOptions{Hash: crypto.SHA256}); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(begin).Seconds() / rounds
}
