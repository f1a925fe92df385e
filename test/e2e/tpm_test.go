package e2e

import (
	"context"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/testpeer"
	"github.com/edgeclm/edgeclm/internal/tpm"
)

// TestKeysInTPM enrols and renews devices whose private keys are made in a TPM.
// OpenSSL agrees about the CSR and the certificate, and, with its tpm2 provider,
// signs with the active pair as a consumer would.
func TestKeysInTPM(t *testing.T) {
	peer := testpeer.StartSWTPM(t)
	openssl := testpeer.OpenSSLTPM2(t)
	p := newPlant(t)
	csrs := &csrCA{CA: p.scep}
	p.runner.CA = csrs
	for _, algo := range []fleet.KeyAlgorithm{fleet.ECDSAP256, fleet.RSA2048} {
		n := p.provision("plc-"+string(algo), algo)
		n.keys = []agent.KeyStore{tpm.New(peer.Socket())}
		n.serve()
		p.commission(map[string]string{n.name: n.addr})
		p.renewed(n)
		p.renewed(n)
		status := value[enrol.DeviceStatus](t)(n.agent.Status(context.Background(), ibc.Identity{}))
		if status.KeyStore != "tpm" || status.LastError != "" {
			t.Errorf("%s: key store %q, last error %q", algo, status.KeyStore, status.LastError)
		}
		dir := t.TempDir()
		run := func(args ...string) string {
			t.Helper()
			cmd := exec.CommandContext(t.Context(), openssl, args...)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "TPM2OPENSSL_TCTI="+peer.TCTI())
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Errorf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
			}
			return string(out)
		}
		write := func(name string, data []byte) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("csr.der", csrs.last)
		for _, name := range []string{"key.pem", "cert.pem", "chain.pem", "ca.pem"} {
			write(name, value[[]byte](t)(os.ReadFile(filepath.Join(n.dir, "active", name))))
		}
		run("req", "-inform", "DER", "-in", "csr.der", "-verify", "-noout")
		run("verify", "-CAfile", "ca.pem", "-untrusted", "chain.pem", "cert.pem")
		if a, b := run("req", "-inform", "DER", "-in", "csr.der", "-pubkey", "-noout"), run("x509", "-in", "cert.pem", "-pubkey", "-noout"); a != b {
			t.Errorf("the CSR is for\n%s, the certificate for\n%s", a, b)
		}
		if block, _ := pem.Decode(value[[]byte](t)(os.ReadFile(filepath.Join(dir, "key.pem")))); block == nil || block.Type != tpm.PEMType {
			t.Errorf("key.pem holds %+v", block)
		}
		run("dgst", "-provider", "tpm2", "-provider", "default", "-propquery", "?provider=tpm2", "-sha256", "-sign", "key.pem", "-out", "signature", "ca.pem")
		write("public.pem", []byte(run("x509", "-in", "cert.pem", "-pubkey", "-noout")))
		run("dgst", "-sha256", "-verify", "public.pem", "-signature", "signature", "ca.pem")
	}
}

// csrCA keeps the last CSR that was submitted.
type csrCA struct {
	enrol.CA
	last []byte
}

func (ca *csrCA) Submit(ctx context.Context, s enrol.Submission) (enrol.Answer, error) {
	ca.last = s.CSR
	return ca.CA.Submit(ctx, s)
}
