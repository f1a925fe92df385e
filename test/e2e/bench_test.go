package e2e

import (
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// primitives does once what no enrolment of a P-256 device can do without, for
// both sides and the CA, since all of them share this machine: the handshake's
// ECDHE and ECDSA; the identity checks (binding signed and verified, statement
// signed and verified); the RSA operations of SCEP at both ends; the device's
// key, CSR and possession signature, and the CA's signature; one durable write.
func primitives(b *testing.B) func() {
	master := value[*ibc.MasterSecret](b)(ibc.Setup(rand.Reader, 1))
	id := value[ibc.Identity](b)(ibc.NewIdentity(ibc.RoleDevice, "plc-1", 1, 1))
	key := value[*ibc.PrivateKey](b)(master.Extract(id))
	rsaKey := value[*rsa.PrivateKey](b)(rsa.GenerateKey(rand.Reader, 2048))
	ecKey := value[*ecdsa.PrivateKey](b)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	file := value[*os.File](b)(os.Create(filepath.Join(b.TempDir(), "log")))
	b.Cleanup(func() { file.Close() })
	digest := sha256.Sum256([]byte("message"))
	page := make([]byte, 4096)
	return func() {
		for range 2 { // both ends
			ours := value[*ecdh.PrivateKey](b)(ecdh.P256().GenerateKey(rand.Reader))
			theirs := value[*ecdh.PrivateKey](b)(ecdh.P256().GenerateKey(rand.Reader))
			value[[]byte](b)(ours.ECDH(theirs.PublicKey()))
		}
		for range 5 { // two of the handshake, CSR, possession, certificate
			signature := value[[]byte](b)(ecdsa.SignASN1(rand.Reader, ecKey, digest[:]))
			if !ecdsa.VerifyASN1(&ecKey.PublicKey, digest[:], signature) {
				b.Fatal("does not verify")
			}
		}
		value[*ecdsa.PrivateKey](b)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
		for range 2 { // binding, statement
			signature := value[[]byte](b)(key.Sign(rand.Reader, digest[:]))
			if err := master.Params().Verify(id, digest[:], signature); err != nil {
				b.Fatal(err)
			}
		}
		for range 2 { // request and answer: one end signs, the other decrypts
			value[[]byte](b)(rsa.SignPKCS1v15(rand.Reader, rsaKey, crypto.SHA256, digest[:]))
			sealed := value[[]byte](b)(rsa.EncryptPKCS1v15(rand.Reader, &rsaKey.PublicKey, digest[:16])) //nolint:staticcheck // SCEP's own
			value[[]byte](b)(rsa.DecryptPKCS1v15(rand.Reader, rsaKey, sealed))                           //nolint:staticcheck // SCEP's own
		}
		if _, err := file.WriteAt(page, 0); err != nil {
			b.Fatal(err)
		}
		if err := file.Sync(); err != nil {
			b.Fatal(err)
		}
	}
}

// unlimited lets one CLM come back sooner than a device would have it.
func unlimited() coaplink.Limits { return coaplink.Limits{SourceBurst: 1 << 20} }

// BenchmarkEnrolment is one whole enrolment for each kind of key, and what it
// costs beyond the primitives that it cannot do without.
func BenchmarkEnrolment(b *testing.B) {
	var floor time.Duration
	b.Run("primitives", func(b *testing.B) {
		once := primitives(b)
		for b.Loop() {
			once()
		}
		floor = b.Elapsed() / time.Duration(b.N)
	})
	for _, algo := range []fleet.KeyAlgorithm{fleet.ECDSAP256, fleet.ECDSAP384, fleet.RSA2048, fleet.RSA3072} {
		b.Run(string(algo), func(b *testing.B) {
			p := newPlant(b)
			p.limits = unlimited()
			n := p.addDevice("plc-1", algo)
			p.renewed(n) // the device then knows the CLM's binding and the CA
			for b.Loop() {
				if result := p.run(n.name); result.Outcome != enrol.OutcomeRenewed {
					b.Fatal(result.Err)
				}
			}
			if floor > 0 && algo == fleet.ECDSAP256 {
				b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(floor), "x-primitives")
			}
		})
	}
}

// BenchmarkFleet is enrolments per second at several degrees of concurrency.
func BenchmarkFleet(b *testing.B) {
	for _, concurrency := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("concurrency %d", concurrency), func(b *testing.B) {
			p := newPlant(b)
			p.limits = unlimited()
			names := make(chan string, concurrency)
			addresses := map[string]string{}
			for i := range concurrency {
				n := p.provision(fmt.Sprintf("plc-%d", i), fleet.ECDSAP256)
				n.serve()
				addresses[n.name] = n.addr
			}
			p.commission(addresses)
			for name := range addresses {
				if result := p.run(name); result.Outcome != enrol.OutcomeRenewed {
					b.Fatal(result.Err)
				}
				names <- name
			}
			var workers sync.WaitGroup
			work := make(chan struct{})
			for range concurrency {
				workers.Go(func() {
					for range work {
						name := <-names
						if result := p.runner.Run(context.Background(), name, true); result.Outcome != enrol.OutcomeRenewed {
							b.Error(result.Err)
						}
						names <- name
					}
				})
			}
			b.ResetTimer()
			for range b.N {
				work <- struct{}{}
			}
			close(work)
			workers.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "enrolments/s")
		})
	}
}
