package agent_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// Environment of a victim: its directory, and the operation on the file system
// before which it kills itself.
const (
	envVictim = "EDGECLM_TEST_VICTIM"
	envPoint  = "EDGECLM_TEST_POINT"
)

// killer kills its process with SIGKILL before one operation.
type killer struct {
	agent.OS
	left int
}

func (k *killer) step() {
	if k.left--; k.left == 0 {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func (k *killer) Create(path string, perm fs.FileMode) (keyfile.File, error) {
	k.step()
	return k.OS.Create(path, perm)
}

func (k *killer) Rename(from, to string, replace bool) error {
	k.step()
	return k.OS.Rename(from, to, replace)
}

func (k *killer) Remove(path string) error {
	k.step()
	return k.OS.Remove(path)
}

func (k *killer) SyncDir(path string) error {
	k.step()
	return k.OS.SyncDir(path)
}

func (k *killer) Symlink(target, path string) error {
	k.step()
	return k.OS.Symlink(target, path)
}

// TestKillVictim is no test but the process that TestKill kills: it enrols and
// renews, with a rollback in between.
func TestKillVictim(t *testing.T) {
	dir := os.Getenv(envVictim)
	if dir == "" {
		return
	}
	layer := &killer{left: must[int](t)(strconv.Atoi(os.Getenv(envPoint)))}
	d := &device{t: t, ca: newAuthority(t, "plant"), peer: clm("clm-1"), cfg: agent.Config{Dir: dir, Layer: layer}}
	must[bool](t)(agent.Provision(dir, layer, newBundle(t, 1)))
	d.start()
	d.enrol(1)
	second := d.stage(2)
	d.ok(d.activate(2, second, time.Hour))
	d.ok(d.rollback(2, second))
	d.ok(d.activate(2, second, 0))
	d.enrol(3)
	d.stop()
}

// A process that is killed with SIGKILL at sampled operations leaves one
// complete pair, an identity, and a directory on which an agent works on.
func TestKill(t *testing.T) {
	self := must[string](t)(os.Executable())
	for point := 1; ; point += 11 {
		dir := filepath.Join(t.TempDir(), "agent")
		victim := exec.Command(self, "-test.run=^TestKillVictim$")
		victim.Env = append(os.Environ(), envVictim+"="+dir, envPoint+"="+strconv.Itoa(point))
		out, err := victim.CombinedOutput()
		var exit *exec.ExitError
		switch {
		case err == nil:
			if point < 100 {
				t.Errorf("the victim ended by itself before operation %d", point)
			}
			return
		case !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL:
			t.Fatalf("the victim: %v\n%s", err, out)
		}
		t.Run(fmt.Sprint("operation ", point), func(t *testing.T) { checkSurvivor(t, dir) })
	}
}

func checkSurvivor(t *testing.T, dir string) {
	linked := linkedPair(t, dir)
	if _, err := os.Stat(filepath.Join(dir, "identity.json")); errors.Is(err, fs.ErrNotExist) {
		return // killed before it had one
	}
	d := &device{t: t, ca: newAuthority(t, "plant"), peer: clm("clm-1"), cfg: agent.Config{Dir: dir}}
	d.start()
	defer d.stop()
	s := d.status()
	if linked != ([32]byte{}) && s.Active == nil {
		t.Fatal("the pair is lost")
	}
	if s.Active != nil {
		d.wantActive(s.Active.SHA256)
	}
	if s.Staged != nil {
		d.ok(d.activate(s.Enrolment[15], s.Staged.SHA256, 0))
		d.wantActive(s.Staged.SHA256)
	}
	// It goes on with the CA that it knows, or with any.
	req := d.request(9)
	if len(s.Anchors) > 0 {
		req.CA, req.CAHash = nil, s.Anchors[0]
	}
	if _, err := d.agent.CSR(context.Background(), d.peer, req); err != nil {
		var refusal *enrol.DeviceError
		if d.status().Staged != nil || !errors.As(err, &refusal) || refusal.Problem != enrol.ProblemForbidden {
			t.Error(err)
		}
	}
}
