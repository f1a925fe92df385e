package agent_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
)

// Attack: a CLM tries to get a private key out of the device. Everything that
// the services return, refusals included, is searched for the key of the
// certificate and for the identity key, whole or in part.
func TestAttackPrivateKeyNeverReturned(t *testing.T) {
	h := &hook{t: t}
	d := newDevice(t, lab, func(c *agent.Config) { c.Reload = h.run })
	var returned bytes.Buffer
	note := func(v any, err error) {
		if b, ok := v.([]byte); ok {
			returned.Write(b)
		}
		text, _ := json.Marshal(v)
		returned.Write(text)
		if err != nil {
			returned.WriteString(err.Error())
		}
	}
	var secrets [][]byte
	for i, algorithm := range []fleet.KeyAlgorithm{fleet.ECDSAP256, fleet.ECDSAP384, fleet.RSA1024} {
		n := byte(i + 1)
		req := d.enclosed(n)
		req.Key = algorithm
		csr, err := d.agent.CSR(t.Context(), d.peer, req)
		d.ok(err)
		note(csr, nil)
		secrets = append(secrets, keySecrets(t, filepath.Join(d.cfg.Dir, "pairs", id(n).String(), "key.pem"))...)
		v, err := d.verify(n, d.ca.issue(t, csr))
		note(v, err)
		note(v.Possession, nil)
		note(v.Statement, nil)
		h.fails = 1
		note(nil, d.activate(n, v.Certificate, time.Hour))
		note(d.status(), nil)
		note(nil, d.activate(n, v.Certificate, time.Hour))
		note(nil, d.confirm(n, v.Certificate))
		note(nil, d.rollback(n, v.Certificate))
		note(nil, d.activate(n, v.Certificate, 0))
		note(d.status(), nil)
		_, err = d.agent.CSR(t.Context(), d.peer, enrol.CSRRequest{})
		note(nil, err)
	}
	// A damaged key file does not end up in an error either.
	d.csr(9)
	path := filepath.Join(d.cfg.Dir, "pairs", id(9).String(), "key.pem")
	pem := must[[]byte](t)(os.ReadFile(path))
	d.ok(os.WriteFile(path, bytes.Replace(pem, []byte("M"), []byte("N"), 1), 0o600))
	_, err := d.verify(9, d.ca.issue(t, newDevice(t).csr(1)))
	note(nil, err)
	identity, _ := d.agent.Present()
	secrets = append(secrets, bytes.Split(pem, []byte("\n"))[1], identity.Bytes())
	for _, s := range secrets {
		// In the clear, and as JSON and hexadecimal digits would show it.
		encoded := must[[]byte](t)(json.Marshal(s))
		for _, form := range [][]byte{s, bytes.Trim(encoded, `"=`), []byte(hex.EncodeToString(s))} {
			if bytes.Contains(returned.Bytes(), form) {
				t.Errorf("a private key was returned: %.16x", s)
			}
			if half := form[:len(form)/2]; bytes.Contains(returned.Bytes(), half) {
				t.Errorf("half a private key was returned: %.16x", s)
			}
		}
	}
	if len(secrets) != 2+3+1+1 {
		t.Errorf("searched for %d secrets", len(secrets))
	}
}

// keySecrets returns the secret numbers of a key file.
func keySecrets(t testing.TB, path string) [][]byte {
	t.Helper()
	switch k := parseKey(t, must[[]byte](t)(os.ReadFile(path))).(type) {
	case *ecdsa.PrivateKey:
		return [][]byte{must[[]byte](t)(k.Bytes())}
	case *rsa.PrivateKey:
		return [][]byte{k.D.Bytes(), k.Primes[0].Bytes(), k.Primes[1].Bytes()}
	}
	t.Fatal("a key of another type")
	return nil
}
