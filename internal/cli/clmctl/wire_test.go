package clmctl

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/labca"
	"github.com/edgeclm/edgeclm/internal/scep"
)

// What was configured is what the core works with.
func TestWorks(t *testing.T) {
	t.Parallel()
	if err := scep.Configure(); err != nil {
		t.Fatal(err)
	}
	master, err := ibc.Setup(rand.Reader, 1)
	if err != nil {
		t.Fatal(err)
	}
	id := ibc.Identity{Role: ibc.RoleCLM, Name: "clm-1", Epoch: 1, Generation: 1}
	key, err := master.Extract(id)
	if err != nil {
		t.Fatal(err)
	}
	a := &app{Deps: Deps{Now: time.Now, Random: rand.Reader}}
	s := &site{dir: dataDir(filepath.Join(t.TempDir(), "clm")), Config: Config{
		Policy:    enrol.Policy{MaxAttempts: 9, Floor: 7 * time.Second},
		Device:    coaplink.Timeouts{Handshake: time.Second, Exchange: 2 * time.Second},
		CATimeout: 3 * time.Second, Profiles: []fleet.Profile{{Name: "press"}},
	}}
	if _, err := a.install(s.dir, &bundle.Bundle{Identity: id, Params: master.Params(), Key: key}, nil); err != nil {
		t.Fatal(err)
	}
	ca, err := labca.Open(filepath.Join(t.TempDir(), "ca"), labca.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ca.Close() }()
	own := authority{
		Name: "lab", URL: "http://127.0.0.1:1/scep", Anchor: ca.Root().Raw,
		Certificates: [][]byte{ca.Issuing().Raw, ca.RA().Raw}, AddedAt: time.Now(),
	}
	if err := a.saveAuthority(s.dir, own, []byte("swordfish"), "clm-1", false); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	_, err = a.works(ctx, s, slog.New(slog.DiscardHandler))
	if clikit.ExitCode(err) != clikit.ExitUsage {
		t.Errorf("without an inventory: %v", err)
	}
	devices, err := s.dir.inventory(ctx, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := devices.Close(); err != nil {
		t.Fatal(err)
	}
	w, err := a.works(ctx, s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.close() }()
	living, ok := w.runner.Dialer.(*livingDialer)
	if !ok {
		t.Fatalf("dialer %T", w.runner.Dialer)
	}
	dialer, err := living.present()
	if err != nil || dialer.Timeouts != s.Device || dialer.Credential.Identity() != id || len(dialer.Params) != 1 {
		t.Errorf("dialer %+v", w.runner.Dialer)
	}
	if w.runner.Policy != s.Policy || w.runner.CAName != "lab" || len(w.runner.Profiles) != 1 {
		t.Errorf("runner %+v", w.runner)
	}
	if got := w.runner.CA.Anchor(); string(got) != string(own.Anchor) {
		t.Error("another anchor")
	}
	if challenge, err := w.runner.CA.Challenge(ctx, "plc-1"); err != nil || string(challenge) != "swordfish" {
		t.Errorf("challenge %q, %v", challenge, err)
	}
	if p, err := w.runner.Params(1); err != nil || p.ID() != master.Params().ID() {
		t.Errorf("params of epoch 1: %v", err)
	}
	if _, err := w.runner.Params(2); err == nil {
		t.Error("there are params of epoch 2")
	}
	if _, err := w.inventory.OpenEnrolment(ctx, "plc-1"); !errors.Is(err, enrol.ErrNotFound) {
		t.Errorf("inventory: %v", err)
	}
}
