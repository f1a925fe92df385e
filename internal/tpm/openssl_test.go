package tpm_test

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/testpeer"
	"github.com/edgeclm/edgeclm/internal/tpm"
)

// OpenSSL's tpm2 provider, another implementation, reads what is stored and
// signs with it: a consumer can serve TLS with a key that is in the TPM.
func TestOpenSSLProvider(t *testing.T) {
	peer := testpeer.StartSWTPM(t)
	openssl := testpeer.OpenSSLTPM2(t)
	device := tpm.New(peer.Socket())
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), openssl, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "TPM2OPENSSL_TCTI="+peer.TCTI())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("openssl %v: %v\n%s", args, err, out)
		}
	}
	write := func(name, label string, der []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "data"), []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, algorithm := range []fleet.KeyAlgorithm{fleet.ECDSAP256, fleet.ECDSAP384, fleet.RSA2048} {
		key, stored := generate(t, device, algorithm)
		spki, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		write("key.pem", tpm.PEMType, stored)
		write("public.pem", "PUBLIC KEY", spki)
		run("dgst", "-provider", "tpm2", "-provider", "default", "-propquery", "?provider=tpm2", "-sha256", "-sign", "key.pem", "-out", "signature", "data")
		run("dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "data")
	}
}
