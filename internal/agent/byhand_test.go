package agent_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/enrol"
)

func TestRollbackByHand(t *testing.T) {
	d, h := newHooked(t)
	if _, err := d.agent.RollbackByHand(t.Context()); !errors.Is(err, agent.ErrNoPrevious) {
		t.Errorf("without any certificate: %v", err)
	}
	first, second := d.enrol(1), d.enrol(2)
	h.saw = nil
	r := must[agent.Rolled](t)(d.agent.RollbackByHand(t.Context()))
	if sha256.Sum256(r.GivenUp.Raw) != second || sha256.Sum256(r.Restored.Raw) != first || r.Failure != nil {
		t.Errorf("got %+v", r)
	}
	h.want(t, first)
	d.wantActive(first)

	// Twice does not bring the other one back; the report stays until the next
	// activation.
	d.restart()
	_, err := d.agent.RollbackByHand(t.Context())
	if want := fmt.Sprintf("%v: %x was given up already", agent.ErrNoPrevious, second); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	d.wantActive(first)
	if s := d.status(); s.RolledBack == nil || *s.RolledBack != second || s.LastError != "rolled back by hand" {
		t.Errorf("the status is %+v", s)
	}
	d.ok(d.activate(2, second, time.Hour))
	if s := d.status(); s.RolledBack != nil || s.LastError != "" {
		t.Errorf("after an activation the status is %+v", s)
	}

	// The hook may fail: the pair is restored all the same.
	h.fails = 1
	r = must[agent.Rolled](t)(d.agent.RollbackByHand(t.Context()))
	if r.Failure == nil {
		t.Error("the failure of the hook is not told")
	}
	d.wantActive(first)
}

// A command on a stopped agent is no start: the third one would roll back.
func TestAgainIsNoStart(t *testing.T) {
	d, _ := newHooked(t)
	first := d.enrol(1)
	second := d.stage(2)
	d.ok(d.activate(2, second, time.Hour))
	d.restart()
	d.restart()
	d.cfg.Again = true
	for range 3 {
		d.restart()
		d.wantActive(second)
	}
	d.cfg.Again = false
	d.restart()
	d.wantActive(first)
	if s := d.status(); s.RolledBack == nil || *s.RolledBack != second {
		t.Errorf("the status is %+v", s)
	}
}

// What a failed activation gave up is told, by hook and across a restart.
func TestGivenUpByHook(t *testing.T) {
	d, h := newHooked(t)
	d.enrol(1)
	second := d.stage(2)
	h.fails = 1
	wantRefusal(t, d.activate(2, second, time.Hour), enrol.ProblemRolledBack)
	d.restart()
	if s := d.status(); s.RolledBack == nil || *s.RolledBack != second || s.LastError != "exit status 3" {
		t.Errorf("the status is %+v", s)
	}
}

// Services that lack the active pair get it at the next start, as if the
// previous pair had come back: a failure is told and changes nothing.
func TestStaleServices(t *testing.T) {
	d, h := newHooked(t)
	stale := true
	d.cfg.Stale = func(agent.Paths) bool { return stale }
	d.restart()
	h.want(t) // there is nothing to have
	first := d.enrol(1)
	h.saw, h.fails = nil, 1
	d.restart()
	h.want(t, first)
	d.wantActive(first)
	if s := d.status(); s.LastError != "exit status 3" || s.RolledBack != nil {
		t.Errorf("the status is %+v", s)
	}
	stale = false
	d.restart()
	h.want(t)
}

// A device that has no pair any more takes it away from its services, again at
// each start.
func TestWithdraw(t *testing.T) {
	d, h := newHooked(t)
	withdrawn := 0
	d.cfg.Withdraw = func() error { withdrawn++; return nil }
	d.restart()
	first := d.stage(1)
	withdrawn, h.fails = 0, 1
	wantRefusal(t, d.activate(1, first, time.Hour), enrol.ProblemRolledBack)
	d.restart()
	if withdrawn != 2 {
		t.Errorf("withdrawn %d times, want at the rollback and at the start", withdrawn)
	}
	d.ok(d.activate(1, first, time.Hour))
	d.restart()
	if withdrawn != 2 {
		t.Error("withdrawn though there is a pair")
	}
}
