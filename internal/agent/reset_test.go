package agent_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
	"github.com/edgeclm/edgeclm/internal/provision"
)

// lived is the directory of a device that has a recipient, an identity, a pair,
// and a configuration.
func lived(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(memoryDir(t), "agent")
	spare := keyfiletest.New(0, keyfiletest.Kill)
	if _, _, err := agent.Provisioned(dir, spare).Recipient(); err != nil {
		t.Fatal(err)
	}
	must[bool](t)(agent.Provision(dir, spare, newBundle(t, 1)))
	pair := filepath.Join(dir, "pairs", "01")
	if err := errors.Join(os.MkdirAll(pair, 0o700),
		os.WriteFile(filepath.Join(pair, "key.pem"), []byte("key"), 0o600),
		os.WriteFile(filepath.Join(dir, "peers.json"), []byte(`{"version":1}`), 0o600),
		os.WriteFile(filepath.Join(dir, "config.yaml"), []byte("listen: :1\n"), 0o600),
		os.Symlink("pairs/01", filepath.Join(dir, "active"))); err != nil {
		t.Fatal(err)
	}
	return dir
}

func clean(t testing.TB, dir string) {
	t.Helper()
	if got := names(t, dir); !slices.Equal(got, []string{"config.yaml", "lock"}) {
		t.Errorf("left: %q", got)
	}
	if _, err := agent.Open(agent.Config{Dir: dir}); !errors.Is(err, provision.ErrNone) {
		t.Errorf("open: %v", err)
	}
}

func TestReset(t *testing.T) {
	t.Parallel()
	dir := lived(t)
	for range 2 {
		if err := agent.Reset(dir, nil, nil); err != nil {
			t.Fatal(err)
		}
		clean(t, dir)
	}
	// It can be provisioned again, as another device even.
	must[bool](t)(agent.Provision(dir, nil, newBundle(t, 2)))
}

// As long as a service's copies of the keys could not be wiped, the reset is
// not finished.
func TestResetIsNotFinishedBeforeTheConsumers(t *testing.T) {
	t.Parallel()
	dir := lived(t)
	failed := errors.New("read-only")
	if err := agent.Reset(dir, nil, func() error { return failed }); !errors.Is(err, failed) {
		t.Fatal(err)
	}
	if err := agent.CheckReset(dir); !errors.Is(err, agent.ErrReset) {
		t.Fatalf("interrupted: %v", err)
	}
	if err := agent.Reset(dir, nil, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	clean(t, dir)
}

// While an agent serves, nothing is taken from under it.
func TestResetRefusesWhileAnAgentRuns(t *testing.T) {
	t.Parallel()
	dir := lived(t)
	device := must[*agent.Agent](t)(agent.Open(agent.Config{Dir: dir}))
	before := names(t, dir)
	if err := agent.Reset(dir, nil, nil); !errors.Is(err, keyfile.ErrLocked) {
		t.Errorf("reset: %v", err)
	}
	if got := names(t, dir); !slices.Equal(got, before) {
		t.Errorf("left: %q, before: %q", got, before)
	}
	if err := device.Close(); err != nil {
		t.Error(err)
	}
}

// A mistaken --data-dir names a directory that somebody needs.
func TestResetOfAnotherDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.tex"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := agent.Reset(dir, nil, nil); !errors.Is(err, agent.ErrNoAgent) {
		t.Errorf("reset: %v", err)
	}
	if got := names(t, dir); !slices.Equal(got, []string{"thesis.tex"}) {
		t.Errorf("left: %q", got)
	}
}

// A link in the directory is removed; what it leads to is not the device's.
func TestResetFollowsNoLink(t *testing.T) {
	t.Parallel()
	dir := lived(t)
	outside := t.TempDir()
	precious := filepath.Join(outside, "precious")
	if err := errors.Join(os.WriteFile(precious, []byte("x"), 0o600), os.Symlink(outside, filepath.Join(dir, "elsewhere"))); err != nil {
		t.Fatal(err)
	}
	if err := agent.Reset(dir, nil, nil); err != nil {
		t.Fatal(err)
	}
	clean(t, dir)
	if got, err := os.ReadFile(precious); err != nil || string(got) != "x" {
		t.Errorf("%q, %v", got, err)
	}
}

// The power fails at each operation of a reset: what is left is the whole
// device, or none that starts or takes an identity, until a reset has finished.
func TestInterruptedReset(t *testing.T) {
	t.Parallel()
	for _, mode := range []keyfiletest.Mode{keyfiletest.Kill, keyfiletest.PowerLoss, keyfiletest.Scatter} {
		for cut := 1; ; cut++ {
			dir := lived(t)
			layer := keyfiletest.New(cut, mode)
			err := agent.Reset(dir, layer, nil)
			if err == nil {
				clean(t, dir)
				break
			}
			if !errors.Is(err, keyfiletest.ErrCut) {
				t.Fatal(err)
			}
			device, openErr := agent.Open(agent.Config{Dir: dir, Layer: keyfiletest.New(0, keyfiletest.Kill)})
			switch {
			case openErr == nil:
				_, keyErr := os.Lstat(filepath.Join(dir, provision.RecipientFile))
				if device.Identity().Generation != 1 || keyErr != nil || device.Close() != nil {
					t.Fatalf("mode %v, cut %d: half a device serves: %v", mode, cut, keyErr)
				}
			case errors.Is(openErr, provision.ErrNone): // the mark was removed, but not durably
			case !errors.Is(openErr, agent.ErrReset):
				t.Fatalf("mode %v, cut %d: open: %v", mode, cut, openErr)
			default:
				if _, err := agent.Provision(dir, nil, newBundle(t, 2)); !errors.Is(err, agent.ErrReset) {
					t.Fatalf("mode %v, cut %d: provision: %v", mode, cut, err)
				}
				if _, err := (agent.FirstBoot{Dir: dir, From: dir}).Run(); !errors.Is(err, agent.ErrReset) {
					t.Fatalf("mode %v, cut %d: first boot: %v", mode, cut, err)
				}
			}
			if err := agent.Reset(dir, keyfiletest.New(0, keyfiletest.Kill), nil); err != nil {
				t.Fatalf("mode %v, cut %d: %v", mode, cut, err)
			}
			clean(t, dir)
		}
	}
}
