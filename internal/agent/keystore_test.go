package agent_test

import (
	"crypto"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/testpeer"
	"github.com/edgeclm/edgeclm/internal/tpm"
)

var _ agent.KeyStore = (*tpm.TPM)(nil)

// A device with keys in files is given a TPM: the next pair is made there, the
// one before stays usable, and the way back is the same.
func TestKeyStoreChanges(t *testing.T) {
	peer := testpeer.StartSWTPM(t)
	device := tpm.New(peer.Socket())
	d := newDevice(t, inMemory(t))
	first := d.enrol(1)
	if s := d.status(); s.KeyStore != "file" {
		t.Errorf("at first keys are in store %q", s.KeyStore)
	}
	d.cfg.KeyStores = []agent.KeyStore{device, agent.FileKeys{}}
	d.restart()
	if s := d.status(); s.KeyStore != "file" || s.LastError != "" {
		t.Errorf("before the renewal: %+v", s)
	}
	second := d.stage(2)
	d.ok(d.activate(2, second, time.Hour))
	d.restart()
	if s := d.status(); s.KeyStore != "tpm" || s.Active.SHA256 != second || s.LastError != "" {
		t.Errorf("after the renewal: %+v", s)
	}
	key := must[[]byte](t)(os.ReadFile(filepath.Join(d.cfg.Dir, "active", "key.pem")))
	if !strings.HasPrefix(string(key), "-----BEGIN TSS2 PRIVATE KEY-----\n") {
		t.Errorf("key.pem is\n%s", key)
	}
	d.ok(d.rollback(2, second))
	if s := d.status(); s.KeyStore != "file" || s.Active.SHA256 != first || s.Staged.SHA256 != second {
		t.Errorf("after the rollback: %+v", s)
	}
	d.ok(d.activate(2, second, 0))
	d.cfg.KeyStores = []agent.KeyStore{agent.FileKeys{}, device}
	d.restart()
	if s := d.status(); s.KeyStore != "tpm" || s.LastError != "" {
		t.Errorf("back to files, before the renewal: %+v", s)
	}
	d.enrol(3)
	if s := d.status(); s.KeyStore != "file" {
		t.Errorf("back to files: %+v", s)
	}
}

// The TPM fails while the agent runs, and while it starts: requests fail, the
// pair in use stays, and the device says what is wrong.
func TestTPMFails(t *testing.T) {
	peer := testpeer.StartSWTPM(t)
	d := newDevice(t, inMemory(t), func(c *agent.Config) { c.KeyStores = []agent.KeyStore{tpm.New(peer.Socket())} })
	first := d.enrol(1)
	d.csr(2)
	peer.Stop()
	var refusal *enrol.DeviceError
	if _, err := d.agent.CSR(t.Context(), clm("clm-1"), d.request(3)); !errors.Is(err, tpm.ErrUnavailable) || errors.As(err, &refusal) {
		t.Errorf("CSR without TPM: %v", err)
	}
	d.restart()
	if s := d.status(); s.Active.SHA256 != first || *s.Enrolment != id(2) || !strings.Contains(s.LastError, "not available") {
		t.Errorf("without TPM: %+v", s)
	}
	if r := must[agent.Report](t)(agent.Inspect(d.cfg.Dir, date(2025), d.cfg.KeyStores...)); r.KeyFits || r.KeyStore != "tpm" || r.LastError == "" {
		t.Errorf("without TPM: %+v", r)
	}
	peer.Start()
	d.enrol(2)
	if s := d.status(); s.LastError != "" {
		t.Errorf("with the TPM again: %+v", s)
	}
	if r := must[agent.Report](t)(agent.Inspect(d.cfg.Dir, date(2025), d.cfg.KeyStores...)); !r.KeyFits || r.KeyStore != "tpm" || r.LastError != "" {
		t.Errorf("with the TPM again: %+v", r)
	}
}

// unsuitable is a store without the keys that are asked for.
type unsuitable struct{ agent.FileKeys }

func (unsuitable) Generate(fleet.KeyAlgorithm) (crypto.Signer, []byte, error) {
	return nil, nil, fleet.ErrProfile
}

// The CLM asks for a kind of key that the store does not have: it is told so.
func TestKeyStoreRefuses(t *testing.T) {
	d := newDevice(t, func(c *agent.Config) { c.KeyStores = []agent.KeyStore{unsuitable{}} })
	_, err := d.agent.CSR(t.Context(), d.peer, d.request(1))
	wantRefusal(t, err, enrol.ProblemForbidden)
}
