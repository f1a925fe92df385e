package agent_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/provision"
	"github.com/edgeclm/edgeclm/internal/testpeer"
	"github.com/edgeclm/edgeclm/internal/tpm"
)

// Attack: the memory card is stolen, the device is not. The thief puts it into
// a device of the same kind, with a TPM of its own, into one without, and reads
// the card byte by byte.
func TestStolenMemoryCard(t *testing.T) {
	peer := testpeer.StartSWTPM(t)
	own := []agent.KeyStore{tpm.New(peer.Socket())}
	dir := filepath.Join(memoryDir(t), "agent")
	sealed := agent.Provisioned(dir, nil, own...)
	sealed.Seal = true
	if _, _, err := sealed.Recipient(); err != nil {
		t.Fatal(err)
	}
	b := newBundle(t, 1)
	must[bool](t)(agent.ProvisionSealed(dir, nil, b, own...))
	d := &device{t: t, ca: newAuthority(t, "plant"), peer: clm("clm-1")}
	d.cfg = agent.Config{Dir: dir, KeyStores: own, Now: inJune}
	d.start()
	first := d.enrol(1)
	d.stop()

	thief := []agent.KeyStore{tpm.New(testpeer.StartSWTPM(t).Socket())}
	for want, keys := range map[error][]agent.KeyStore{tpm.ErrOther: thief, provision.ErrSealed: nil} {
		stolen := d.cfg
		stolen.KeyStores = keys
		if _, err := agent.Open(stolen); !errors.Is(err, want) {
			t.Errorf("the agent starts: %v, want %v", err, want)
		}
		if _, _, err := agent.Provisioned(dir, nil, keys...).Recipient(); !errors.Is(err, want) {
			t.Errorf("the recipient opens: %v, want %v", err, want)
		}
	}
	secrets := [][]byte{b.Key.Bytes(), []byte(hex.EncodeToString(b.Key.Bytes())), []byte("AGE-SECRET-KEY"), []byte("BEGIN PRIVATE KEY")}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data := must[[]byte](t)(os.ReadFile(path))
		for _, secret := range secrets {
			if bytes.Contains(data, secret) {
				t.Errorf("%s holds a key", path)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	// At home it is as it was, and a later bundle is sealed without being asked.
	d.start()
	d.wantSealedActive(first)
	d.stop()
	must[bool](t)(agent.Provision(dir, nil, newBundle(t, 2), own...))
	if r := must[agent.Report](t)(agent.Inspect(dir, inJune(), own...)); !r.Sealed || r.Identity.Generation != 2 {
		t.Errorf("after a later bundle: %+v", r)
	}
	// The TPM is gone: the agent says so instead of starting without identity.
	peer.Stop()
	if _, err := agent.Open(d.cfg); !errors.Is(err, tpm.ErrUnavailable) {
		t.Errorf("without TPM the agent starts: %v", err)
	}
}

// wantSealedActive is wantActive for a key that is no file.
func (d *device) wantSealedActive(want [32]byte) {
	d.t.Helper()
	if s := d.status(); s.Active == nil || s.Active.SHA256 != want || s.KeyStore != "tpm" || s.LastError != "" {
		d.t.Errorf("the status is %+v", s)
	}
}

// A device that was provisioned in clear is told to seal: it does at its next
// start, and stays who it is.
func TestSealLater(t *testing.T) {
	own := []agent.KeyStore{tpm.New(testpeer.StartSWTPM(t).Socket()), agent.FileKeys{}}
	d := newDevice(t)
	first := d.enrol(1)
	d.cfg.KeyStores, d.cfg.Seal = own, true
	d.restart()
	d.wantActive(first)
	d.stop()
	if _, err := agent.Provisioned(d.cfg.Dir, nil).Load(); !errors.Is(err, provision.ErrSealed) {
		t.Errorf("without TPM: %v", err)
	}
	d.cfg.Seal = false
	d.start()
	d.wantActive(first)
}
