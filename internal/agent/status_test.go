package agent_test

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

func TestStatus(t *testing.T) {
	d := newDevice(t)
	s := d.status()
	if s.Version != "test" || s.Identity != d.agent.Identity() || s.Active != nil || s.Staged != nil || s.Enrolment != nil ||
		s.Unconfirmed || s.LastError != "" || s.Clock != enrol.ClockPlausible || len(s.Anchors) != 0 {
		t.Errorf("at first the status is %+v", s)
	}
	first := d.enrol(1)
	s = d.status()
	d.restart()
	again := d.status()
	if again.KeyAndCSR != s.KeyAndCSR || again.Verification != s.Verification || again.KeyAndCSR <= 0 || again.Verification <= 0 {
		t.Errorf("the durations were %v and %v, after a restart %v and %v", s.KeyAndCSR, s.Verification, again.KeyAndCSR, again.Verification)
	}
	second := d.stage(2)
	s = d.status()
	if s.Active.SHA256 != first || s.Active.Serial != "65" || !s.Active.NotAfter.Equal(date(2027)) || s.Active.Expired {
		t.Errorf("the active certificate is %+v", s.Active)
	}
	if s.Staged.SHA256 != second || s.Staged.Serial != "66" || *s.Enrolment != id(2) {
		t.Errorf("the staged certificate is %+v of %v", s.Staged, s.Enrolment)
	}
	d.restart()
	again = d.status()
	if again.Staged == nil || *again.Staged != *s.Staged {
		t.Errorf("after a restart %+v is staged, it was %+v", again.Staged, s.Staged)
	}
}

// Inspect reads a directory beside a running agent, and changes nothing.
func TestInspect(t *testing.T) {
	if r := must[agent.Report](t)(agent.Inspect(filepath.Join(t.TempDir(), "none"), time.Now())); r.Identity != nil || r.Active != nil {
		t.Errorf("of nothing, the report is %+v", r)
	}
	d := newDevice(t)
	first := d.enrol(1)
	second := d.stage(2)
	before := allFiles(t, d.cfg.Dir)
	inspect := func() agent.Report {
		t.Helper()
		return must[agent.Report](t)(agent.Inspect(d.cfg.Dir, date(2025)))
	}
	r := inspect()
	if *r.Identity != d.agent.Identity() || r.Params.ID() != pkg().Params().ID() || !r.KeyFits || r.Clock != enrol.ClockBehind ||
		sha256.Sum256(r.Active.Raw) != first || sha256.Sum256(r.Staged.Raw) != second {
		t.Errorf("the report is %+v", r)
	}
	if allFiles(t, d.cfg.Dir) != before {
		t.Error("the directory was changed")
	}
	d.ok(os.WriteFile(filepath.Join(d.cfg.Dir, "active", "key.pem"), must[[]byte](t)(os.ReadFile(
		filepath.Join(d.cfg.Dir, "pairs", id(2).String(), "key.pem"))), keyfile.SecretPerm))
	if r := inspect(); r.KeyFits || r.Active == nil || r.LastError == "" {
		t.Errorf("with another key the report is %+v", r)
	}
}
