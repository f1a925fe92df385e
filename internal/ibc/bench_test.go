package ibc

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"testing"
)

func benchKey(b *testing.B) *PrivateKey {
	v := loadVectors(b)
	key, err := v.master(b, 1).Extract(mustIdentity(b, v.Keys[0].Identity))
	if err != nil {
		b.Fatal(err)
	}
	return key
}

func BenchmarkSign(b *testing.B) {
	key := benchKey(b)
	for b.Loop() {
		if _, err := key.Sign(rand.Reader, []byte("message")); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	key := benchKey(b)
	signature, err := key.Sign(rand.Reader, []byte("message"))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := key.Params().Verify(key.Identity(), []byte("message"), signature); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPairingCheck is the floor of BenchmarkVerify: its pairings alone.
func BenchmarkPairingCheck(b *testing.B) {
	key := benchKey(b)
	for b.Loop() {
		if !pairingsEqual(key.d, key.q, key.params.ppub) {
			b.Fatal("not equal")
		}
	}
}

// BenchmarkECDSAVerify is the baseline: what a P-256 signature check costs.
func BenchmarkECDSAVerify(b *testing.B) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	digest := sha256.Sum256([]byte("message"))
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if !ecdsa.VerifyASN1(&key.PublicKey, digest[:], signature) {
			b.Fatal("does not verify")
		}
	}
}

func BenchmarkHashToG1(b *testing.B) {
	id := benchKey(b).Identity()
	for b.Loop() {
		_ = id.PublicKey()
	}
}

func BenchmarkExtract(b *testing.B) {
	v := loadVectors(b)
	master, id := v.master(b, 1), mustIdentity(b, v.Keys[0].Identity)
	for b.Loop() {
		if _, err := master.Extract(id); err != nil {
			b.Fatal(err)
		}
	}
}
