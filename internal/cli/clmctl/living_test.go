package clmctl

import (
	"crypto/rand"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// A process that runs on is who the data directory says: of a later epoch beside
// the earlier one, and of the later one alone after that was closed.
func TestLivingDialer(t *testing.T) {
	t.Parallel()
	a := &app{Deps: Deps{Now: time.Now, Random: rand.Reader}}
	s := &site{dir: dataDir(filepath.Join(t.TempDir(), "clm"))}
	var secrets []*ibc.MasterSecret
	install := func(epoch uint32) {
		t.Helper()
		master, err := ibc.Setup(rand.Reader, epoch)
		if err != nil {
			t.Fatal(err)
		}
		id := ibc.Identity{Role: ibc.RoleCLM, Name: "clm-1", Epoch: epoch, Generation: 1}
		key, err := master.Extract(id)
		if err != nil {
			t.Fatal(err)
		}
		b := &bundle.Bundle{Identity: id, Params: master.Params(), Key: key}
		if len(secrets) > 0 {
			step, err := secrets[len(secrets)-1].Succeed(master.Params())
			if err != nil {
				t.Fatal(err)
			}
			b.Epochs = []ibc.Succession{step}
		}
		secrets = append(secrets, master)
		if _, err := a.install(s.dir, b, nil); err != nil {
			t.Fatal(err)
		}
	}
	install(1)
	own, err := s.dir.identity()
	if err != nil {
		t.Fatal(err)
	}
	living, err := a.livingDialer(s, own)
	if err != nil {
		t.Fatal(err)
	}
	first, err := living.present()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := living.present(); err != nil || again != first {
		t.Errorf("the dialer is another though nothing changed: %v", err)
	}

	install(2)
	both, err := living.present()
	if err != nil {
		t.Fatal(err)
	}
	if len(both.Earlier) != 1 || both.Earlier[0].Identity().Epoch != 1 || both.Credential.Identity().Epoch != 2 || len(both.Params) != 2 {
		t.Fatalf("in both epochs: %+v", both)
	}
	if string(both.Earlier[0].Certificate()) != string(first.Credential.Certificate()) {
		t.Error("devices of the first epoch would see another certificate than they remember")
	}
	for epoch := range uint32(2) {
		if _, err := living.params(epoch + 1); err != nil {
			t.Error(err)
		}
	}

	if own, err = s.dir.identity(); err != nil {
		t.Fatal(err)
	}
	closed, err := own.Close(1, time.Now(), "")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.dir.provision().Save(closed); err != nil {
		t.Fatal(err)
	}
	last, err := living.present()
	if err != nil || len(last.Earlier) != 0 || len(last.Params) != 1 {
		t.Errorf("after the first epoch was closed: %+v, %v", last, err)
	}
	if _, err := living.params(1); err == nil {
		t.Error("the first epoch is still accepted")
	}
}
