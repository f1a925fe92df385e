package agent_test

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/provision"
)

// hook is a reload hook that notes what it found, and fails when told to.
type hook struct {
	t     testing.TB
	fails int // so many times
	saw   [][32]byte
}

func (h *hook) run(_ context.Context, active agent.Paths) error {
	h.saw = append(h.saw, linkedPair(h.t, filepath.Dir(active.Dir)))
	for _, path := range []string{active.Key, active.Certificate, active.Chain, active.CA} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != keyfile.SecretPerm {
			h.t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	if h.fails > 0 {
		h.fails--
		return errors.New("exit status 3")
	}
	return nil
}

func newHooked(t testing.TB) (*device, *hook) {
	h := &hook{t: t}
	return newDevice(t, func(c *agent.Config) { c.Reload = h.run }), h
}

func (h *hook) want(t testing.TB, certificates ...[32]byte) {
	t.Helper()
	if len(h.saw) != len(certificates) {
		t.Fatalf("the hook ran %d times, want %d", len(h.saw), len(certificates))
	}
	for i, c := range certificates {
		if h.saw[i] != c {
			t.Errorf("run %d of the hook saw %x, want %x", i+1, h.saw[i][:4], c[:4])
		}
	}
	h.saw = nil
}

func TestActivate(t *testing.T) {
	d, h := newHooked(t)
	first := d.stage(1)
	d.wantActive([32]byte{})
	d.ok(d.activate(1, first, time.Hour))
	d.ok(d.activate(1, first, time.Hour)) // the answer was lost
	h.want(t, first)
	d.wantActive(first)
	if s := d.status(); !s.Unconfirmed || s.Staged != nil || *s.Enrolment != id(1) {
		t.Errorf("after the activation the status is %+v", s)
	}
	d.ok(d.confirm(1, first))
	d.ok(d.confirm(1, first))
	d.ok(d.activate(1, first, time.Hour)) // a late one changes nothing
	if d.status().Unconfirmed {
		t.Error("still unconfirmed")
	}
	second := d.stage(2)
	d.wantActive(first)
	d.ok(d.activate(2, second, 0))
	h.want(t, second)
	d.wantActive(second)
	if d.status().Unconfirmed {
		t.Error("unconfirmed though it was to be final at once")
	}
	d.ok(d.confirm(2, second))
	d.restart()
	d.wantActive(second)
	h.want(t)
}

// Attack: somebody delays or repeats the /activate of a certificate that has
// been replaced since, to bring the device back to it.
func TestAttackLateActivateOfPrevious(t *testing.T) {
	d := newDevice(t)
	first, second := d.enrol(1), d.enrol(2)
	wantRefusal(t, d.activate(1, first, 0), enrol.ProblemConflict)
	d.restart()
	wantRefusal(t, d.activate(1, first, 0), enrol.ProblemConflict)
	wantRefusal(t, d.confirm(1, first), enrol.ProblemConflict)
	wantRefusal(t, d.rollback(1, first), enrol.ProblemConflict)
	d.wantActive(second)
	third := d.enrol(3)
	wantRefusal(t, d.activate(1, first, 0), enrol.ProblemUnknown)
	d.wantActive(third)
}

func TestActivateRefusals(t *testing.T) {
	d := newDevice(t)
	active := d.enrol(1)
	d.csr(2)
	wantRefusal(t, d.activate(2, [32]byte{}, 0), enrol.ProblemConflict) // nothing staged
	staged := d.stage(2)
	wantRefusal(t, d.activate(2, active, 0), enrol.ProblemConflict)
	wantRefusal(t, d.activate(1, staged, 0), enrol.ProblemConflict)
	wantRefusal(t, d.activate(9, staged, 0), enrol.ProblemUnknown)
	wantRefusal(t, d.activate(2, staged, -1), enrol.ProblemBadRequest)
	wantRefusal(t, d.activate(2, staged, 1e6*time.Hour), enrol.ProblemBadRequest)
	wantRefusal(t, d.confirm(2, staged), enrol.ProblemConflict)
	wantRefusal(t, d.confirm(9, staged), enrol.ProblemUnknown)
	wantRefusal(t, d.rollback(2, staged), enrol.ProblemConflict)
	wantRefusal(t, d.rollback(9, staged), enrol.ProblemUnknown)
	wantRefusal(t, d.rollback(1, active), enrol.ProblemConflict) // no previous
	d.wantActive(active)
}

// A failing hook brings the previous pair back and is run for it; the new one
// stays staged and may be tried again.
func TestFailingHook(t *testing.T) {
	d, h := newHooked(t)
	first := d.enrol(1)
	second := d.stage(2)
	h.saw, h.fails = nil, 1
	r := wantRefusal(t, d.activate(2, second, time.Hour), enrol.ProblemRolledBack)
	if !strings.Contains(r.Detail, "exit status 3") || d.status().LastError != r.Detail {
		t.Errorf("the refusal says %q, the status %q", r.Detail, d.status().LastError)
	}
	h.want(t, second, first)
	d.wantActive(first)
	d.csr(2) // the CSR is kept until the activation succeeds
	h.fails = 2
	wantRefusal(t, d.activate(2, second, time.Hour), enrol.ProblemRolledBack)
	h.want(t, second, first)
	d.restart()
	d.wantActive(first)
	h.want(t)
	d.ok(d.activate(2, second, time.Hour))
	h.want(t, second)
	d.wantActive(second)
	if e := d.status().LastError; e != "" {
		t.Errorf("the last error is still %q", e)
	}
}

// Without a previous pair, a failing hook leaves the device without one.
func TestFailingHookOfFirst(t *testing.T) {
	d, h := newHooked(t)
	first := d.stage(1)
	h.fails = 1
	wantRefusal(t, d.activate(1, first, time.Hour), enrol.ProblemRolledBack)
	h.want(t, first)
	d.wantActive([32]byte{})
	d.ok(d.activate(1, first, time.Hour))
	d.wantActive(first)
}

func TestRollback(t *testing.T) {
	d, h := newHooked(t)
	first := d.enrol(1)
	second := d.stage(2)
	d.ok(d.activate(2, second, time.Hour))
	h.saw = nil
	d.ok(d.rollback(2, second))
	d.ok(d.rollback(2, second))
	h.want(t, first)
	d.wantActive(first)
	s := d.status()
	if s.Staged == nil || s.Staged.SHA256 != second || s.Unconfirmed || !strings.Contains(s.LastError, "clm-1") {
		t.Errorf("after the rollback the status is %+v", s)
	}
	wantRefusal(t, d.confirm(2, second), enrol.ProblemConflict)
	// The CSR is gone, the pair may be activated again.
	_, err := d.agent.CSR(t.Context(), d.peer, d.request(2))
	wantRefusal(t, err, enrol.ProblemUnknown)
	d.restart()
	d.ok(d.activate(2, second, time.Hour))
	d.ok(d.confirm(2, second))
	d.ok(d.rollback(2, second)) // after the confirmation too
	d.wantActive(first)
	// In the slot of another enrolment there is no room for it.
	d.ok(d.activate(2, second, time.Hour))
	d.csr(3)
	d.ok(d.rollback(2, second))
	wantRefusal(t, d.activate(2, second, 0), enrol.ProblemUnknown)
	d.wantActive(first)
}

// Unless it is confirmed in time, the previous pair comes back; time is
// uptime, and each start begins it anew.
func TestConfirmationTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, h := newHooked(t)
		first := d.enrol(1)
		second := d.stage(2)
		h.saw = nil
		d.ok(d.activate(2, second, time.Minute))
		time.Sleep(59 * time.Second)
		d.restart()
		time.Sleep(59 * time.Second)
		synctest.Wait()
		d.wantActive(second)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		d.wantActive(first)
		h.want(t, second, first)
		if s := d.status(); !strings.Contains(s.LastError, "1m0s") || s.Staged.SHA256 != second || s.RolledBack == nil || *s.RolledBack != second {
			t.Errorf("after the timer the status is %+v", s)
		}
		d.ok(d.activate(2, second, time.Minute))
		time.Sleep(59 * time.Second)
		d.wantActive(second)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		d.wantActive(first)
		// Confirmed, rolled back or replaced in time, it does not ring again.
		d.ok(d.activate(2, second, time.Minute))
		d.ok(d.rollback(2, second))
		d.ok(d.activate(2, second, 2*time.Minute))
		time.Sleep(90 * time.Second)
		d.ok(d.confirm(2, second))
		time.Sleep(time.Hour)
		synctest.Wait()
		d.wantActive(second)
	})
}

// slowReader is a source of randomness that blocks for a while.
type slowReader struct{ wait time.Duration }

func (r *slowReader) Read(p []byte) (int, error) {
	time.Sleep(r.wait)
	return rand.Read(p)
}

// A timer that rings while the pair is being replaced is not the new pair's.
func TestTimerOfReplacedPair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &slowReader{}
		d := newDevice(t, func(c *agent.Config) { c.Random = slow })
		d.enrol(1)
		d.ok(d.activate(2, d.stage(2), time.Minute))
		certificates := d.ca.issue(t, d.csr(3))
		third := must[enrol.VerifyResponse](t)(d.verify(3, certificates)).Certificate
		time.Sleep(58 * time.Second)
		slow.wait = 5 * time.Second
		go func() { _, _ = d.verify(3, certificates) }() // the agent is busy when the timer rings
		time.Sleep(time.Second)
		d.ok(d.activate(3, third, time.Hour)) // next in the queue
		slow.wait = 0
		synctest.Wait()
		d.wantActive(third)
		time.Sleep(time.Hour - time.Second)
		synctest.Wait()
		d.wantActive(third)
	})
}

// The third start without confirmation brings the previous pair back.
func TestUnconfirmedStarts(t *testing.T) {
	d, h := newHooked(t)
	first := d.enrol(1)
	second := d.stage(2)
	h.saw = nil
	d.ok(d.activate(2, second, time.Hour))
	d.restart()
	d.restart()
	d.wantActive(second)
	d.restart()
	d.wantActive(first)
	h.want(t, second, first)
	// Activated again, it has all its starts again.
	d.ok(d.activate(2, second, time.Hour))
	d.restart()
	d.wantActive(second)
}

// Without a previous pair, neither timer nor starts take the only one away.
func TestFirstPairIsNeverTakenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		first := d.stage(1)
		d.ok(d.activate(1, first, time.Minute))
		for range 5 {
			d.restart()
			time.Sleep(time.Hour)
			synctest.Wait()
		}
		d.wantActive(first)
		if !d.status().Unconfirmed {
			t.Error("confirmed by nobody")
		}
		d.ok(d.confirm(1, first))
	})
}

// The pair to go back to is the one that was active before, confirmed or not:
// its hook has succeeded. It is final then.
func TestFallbackOfUnconfirmed(t *testing.T) {
	d, h := newHooked(t)
	d.enrol(1)
	second := d.stage(2)
	d.ok(d.activate(2, second, time.Hour))
	third := d.stage(3)
	h.fails = 1
	wantRefusal(t, d.activate(3, third, time.Hour), enrol.ProblemRolledBack)
	d.wantActive(second)
	if d.status().Unconfirmed {
		t.Error("the pair that was restored awaits a confirmation")
	}
	d.ok(d.activate(3, third, time.Hour))
	d.ok(d.rollback(3, third))
	d.wantActive(second)
}

// The CSR may hold the CA's challenge: after the activation no file of the
// device does.
func TestNoChallengeIsKept(t *testing.T) {
	const challenge = "correct-horse-battery"
	d := newDevice(t)
	req := d.request(1)
	req.Challenge = []byte(challenge)
	csr := must[[]byte](t)(d.agent.CSR(t.Context(), d.peer, req))
	if !strings.Contains(allFiles(t, d.cfg.Dir), challenge) {
		t.Fatal("the challenge is in no file while it is needed: the search finds nothing")
	}
	v := must[enrol.VerifyResponse](t)(d.verify(1, d.ca.issue(t, csr)))
	d.ok(d.activate(1, v.Certificate, time.Hour))
	if strings.Contains(allFiles(t, d.cfg.Dir), challenge) {
		t.Error("the challenge is still in a file")
	}
}

// allFiles returns the content of every file under dir.
func allFiles(t testing.TB, dir string) string {
	t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		out.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// Everything in the directory is for the owner alone, and the agent refuses to
// work where that is not so.
func TestPermissions(t *testing.T) {
	d := newDevice(t)
	d.enrol(1)
	d.enrol(2)
	d.ok(d.agent.Remember([32]byte{1}, d.peer))
	err := filepath.WalkDir(d.cfg.Dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.Type()&os.ModeSymlink != 0 {
			return err
		}
		info, err := e.Info()
		want := os.FileMode(keyfile.SecretPerm)
		if e.IsDir() {
			want = keyfile.DirPerm
		}
		if err == nil && info.Mode().Perm() != want {
			t.Errorf("%s has mode %04o, want %04o", path, info.Mode().Perm(), want)
		}
		return err
	})
	d.ok(err)
	d.stop()
	defer d.start() // for the clean-up
	for _, name := range []string{"", provision.IdentityFile, "state.json", "peers.json"} {
		path := filepath.Join(d.cfg.Dir, name)
		info := must[os.FileInfo](t)(os.Stat(path))
		d.ok(os.Chmod(path, info.Mode().Perm()|0o040))
		if _, err := agent.Open(d.cfg); !errors.Is(err, keyfile.ErrPermissions) {
			t.Errorf("with %q readable by others, Open says %v", name, err)
		}
		d.ok(os.Chmod(path, info.Mode().Perm()))
	}
}

func TestOpenErrors(t *testing.T) {
	d := newDevice(t)
	d.enrol(1)
	if _, err := agent.Open(d.cfg); !errors.Is(err, keyfile.ErrLocked) {
		t.Errorf("a second agent on the directory: %v", err)
	}
	if _, err := agent.Provision(d.cfg.Dir, nil, newBundle(t, 2)); !errors.Is(err, keyfile.ErrLocked) {
		t.Errorf("provisioning under a running agent: %v", err)
	}
	empty := d.cfg
	empty.Dir = t.TempDir()
	if _, err := agent.Open(empty); !errors.Is(err, provision.ErrNone) {
		t.Errorf("an empty directory: %v", err)
	}
	if entries := must[[]os.DirEntry](t)(os.ReadDir(empty.Dir)); len(entries) > 0 {
		t.Errorf("the empty directory has %v now", entries)
	}
	d.stop()
	defer d.start()
	for _, name := range []string{"state.json", "peers.json"} {
		path := filepath.Join(d.cfg.Dir, name)
		before, err := os.ReadFile(path)
		if err != nil {
			before = nil
		}
		for _, content := range []string{"", "{", `{"version": 2}`, `{"version": 1, "active": {"id": "x"}, "bindings": 1}`} {
			d.ok(os.WriteFile(path, []byte(content), keyfile.SecretPerm))
			if _, err := agent.Open(d.cfg); !errors.Is(err, agent.ErrState) {
				t.Errorf("%s = %q: %v", name, content, err)
			}
		}
		d.ok(os.Remove(path))
		if before != nil {
			d.ok(os.WriteFile(path, before, keyfile.SecretPerm))
		}
	}
}

// A previous pair that is damaged is none: the active one stays, unconfirmed.
func TestDamagedFallback(t *testing.T) {
	d := newDevice(t)
	d.enrol(1)
	second := d.stage(2)
	d.ok(d.activate(2, second, time.Hour))
	d.stop()
	d.ok(os.WriteFile(filepath.Join(d.cfg.Dir, "pairs", id(1).String(), "key.pem"), nil, keyfile.SecretPerm))
	d.start()
	for range 3 {
		d.restart()
	}
	d.wantActive(second)
	wantRefusal(t, d.rollback(2, second), enrol.ProblemConflict)
	d.ok(d.confirm(2, second))
}

// A damaged pair is reported and never the one to go back to; the device can
// still be enrolled.
func TestDamagedPair(t *testing.T) {
	d := newDevice(t)
	d.enrol(1)
	d.stop()
	d.ok(os.WriteFile(filepath.Join(d.cfg.Dir, "active", "key.pem"), []byte("garbage"), keyfile.SecretPerm))
	d.start()
	if s := d.status(); s.Active != nil || s.LastError == "" {
		t.Errorf("with a damaged key the status is %+v", s)
	}
	second := d.stage(2)
	d.ok(d.activate(2, second, time.Hour))
	wantRefusal(t, d.rollback(2, second), enrol.ProblemConflict)
	d.wantActive(second)
	// Nor does it take the place of one that is sound.
	third := d.enrol(3)
	d.stop()
	d.ok(os.WriteFile(filepath.Join(d.cfg.Dir, "active", "cert.pem"), []byte("garbage"), keyfile.SecretPerm))
	d.start()
	if s := d.status(); s.Active != nil {
		t.Errorf("with a damaged certificate the status is %+v", s)
	}
	fourth := d.stage(4)
	d.ok(d.activate(4, fourth, time.Hour))
	d.ok(d.rollback(4, fourth))
	d.wantActive(second)
	wantRefusal(t, d.activate(3, third, 0), enrol.ProblemUnknown)
}
