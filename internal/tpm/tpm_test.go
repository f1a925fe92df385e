package tpm_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/testpeer"
	"github.com/edgeclm/edgeclm/internal/tpm"
)

func generate(t testing.TB, device *tpm.TPM, algorithm fleet.KeyAlgorithm) (crypto.Signer, []byte) {
	t.Helper()
	key, stored, err := device.Generate(algorithm)
	if err != nil {
		t.Fatalf("%s: %v", algorithm, err)
	}
	return key, stored
}

// signs signs and verifies with the public key.
func signs(key crypto.Signer) error {
	long := sha512.Sum384([]byte("message"))
	digest, hash := long[:32], crypto.SHA256
	if k, ok := key.Public().(*ecdsa.PublicKey); ok && k.Params().BitSize == 384 {
		digest, hash = long[:], crypto.SHA384
	}
	signature, err := key.Sign(rand.Reader, digest, hash)
	if err != nil {
		return err
	}
	switch k := key.Public().(type) {
	case *ecdsa.PublicKey:
		if !ecdsa.VerifyASN1(k, digest, signature) {
			return errors.New("the ECDSA signature does not verify")
		}
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, hash, digest, signature)
	}
	return nil
}

// Each kind of key is made, signs, and signs again after the TPM restarted.
func TestKeys(t *testing.T) {
	peer := testpeer.StartSWTPM(t)
	device := tpm.New(peer.Socket())
	kept := map[fleet.KeyAlgorithm][]byte{}
	for _, algorithm := range []fleet.KeyAlgorithm{fleet.ECDSAP256, fleet.ECDSAP384, fleet.RSA2048, fleet.RSA3072} {
		key, stored := generate(t, device, algorithm)
		if err := signs(key); err != nil {
			t.Errorf("%s: %v", algorithm, err)
		}
		kept[algorithm] = stored
	}
	peer.Stop()
	peer.Start()
	for algorithm, stored := range kept {
		key, err := device.Load(stored)
		if err == nil {
			err = signs(key)
		}
		if err != nil {
			t.Errorf("%s after a restart: %v", algorithm, err)
		}
	}
}

func TestOtherKeysAreRefused(t *testing.T) {
	device := tpm.New(testpeer.StartSWTPM(t).Socket())
	for _, algorithm := range []fleet.KeyAlgorithm{fleet.RSA1024, fleet.RSA4096, ""} {
		if _, _, err := device.Generate(algorithm); !errors.Is(err, fleet.ErrProfile) {
			t.Errorf("%q: %v", algorithm, err)
		}
	}
	key, _ := generate(t, device, fleet.RSA2048)
	digest := sha256.Sum256(nil)
	for _, opts := range []crypto.SignerOpts{&rsa.PSSOptions{Hash: crypto.SHA256}, crypto.SHA512, crypto.Hash(0)} {
		if _, err := key.Sign(rand.Reader, digest[:], opts); err == nil {
			t.Errorf("signed with %v", opts)
		}
	}
}

func TestSeal(t *testing.T) {
	peer := testpeer.StartSWTPM(t)
	device := tpm.New(peer.Socket())
	for _, size := range []int{1, 48, tpm.MaxSealed} {
		secret := bytes.Repeat([]byte{0xa5}, size)
		sealed, err := device.Seal(secret)
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if size > 1 && bytes.Contains(sealed, secret) {
			t.Errorf("%d bytes: the secret is in what was sealed", size)
		}
		peer.Stop()
		peer.Start()
		if got, err := device.Unseal(sealed); err != nil || !bytes.Equal(got, secret) {
			t.Errorf("%d bytes: %x, %v", size, got, err)
		}
	}
	for _, size := range []int{0, tpm.MaxSealed + 1} {
		if _, err := device.Seal(make([]byte, size)); err == nil {
			t.Errorf("sealed %d bytes", size)
		}
	}
}

// A thief puts the stored bytes before a TPM of his own.
func TestOtherTPM(t *testing.T) {
	mine, other := tpm.New(testpeer.StartSWTPM(t).Socket()), tpm.New(testpeer.StartSWTPM(t).Socket())
	_, stored := generate(t, mine, fleet.ECDSAP256)
	key, err := other.Load(stored)
	if err != nil {
		t.Fatal(err)
	}
	if err := signs(key); !errors.Is(err, tpm.ErrOther) {
		t.Errorf("signed: %v", err)
	}
	sealed, err := mine.Seal([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if secret, err := other.Unseal(sealed); !errors.Is(err, tpm.ErrOther) {
		t.Errorf("unsealed %q: %v", secret, err)
	}
	// The other TPM is as usable as before.
	for range 5 {
		if _, err := other.Unseal(sealed); !errors.Is(err, tpm.ErrOther) {
			t.Fatal(err)
		}
	}
	generate(t, other, fleet.ECDSAP256)
}

// 200 operations in a row, on a TPM without resource manager, whose memory
// holds three objects and three sessions.
func TestNothingIsLeft(t *testing.T) {
	device := tpm.New(testpeer.StartSWTPM(t).Socket())
	key, stored := generate(t, device, fleet.ECDSAP256)
	broken := bytes.Clone(stored)
	broken[len(broken)-1] ^= 1 // of the private part: only the TPM finds it
	bad, err := device.Load(broken)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 67 {
		if err := signs(key); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		if err := signs(bad); !errors.Is(err, tpm.ErrOther) {
			t.Fatalf("round %d: %v", i, err)
		}
		sealed, err := device.Seal([]byte("secret"))
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		if i%10 == 0 {
			if _, err := device.Unseal(sealed); err != nil {
				t.Fatalf("round %d: %v", i, err)
			}
		}
	}
}

func TestUnavailable(t *testing.T) {
	peer := testpeer.StartSWTPM(t)
	device := tpm.New(peer.Socket())
	key, _ := generate(t, device, fleet.ECDSAP256)
	peer.Stop()
	if err := signs(key); !errors.Is(err, tpm.ErrUnavailable) {
		t.Errorf("without TPM: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, file + ".missing", "/dev/null"} {
		if _, _, err := tpm.New(path).Generate(fleet.ECDSAP256); !errors.Is(err, tpm.ErrUnavailable) {
			t.Errorf("%s: %v", path, err)
		}
	}
	peer.Start()
	if err := signs(key); err != nil {
		t.Errorf("the TPM is back: %v", err)
	}
}
