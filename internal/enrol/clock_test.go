package enrol_test

import (
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
)

// TestWrongCLMClock: a CLM in 2099 sees every certificate as expired. The CA's
// own date shows whose fault it is: nothing is counted, and the same
// certificate is installed once the clock is right.
func TestWrongCLMClock(t *testing.T) {
	w := newWorld(t)
	right := w.now
	w.now = right.AddDate(73, 0, 0)
	w.ca.behind = w.now.Sub(right)
	w.expect(false, enrol.OutcomePending, enrol.ClassClock, "our clock")
	if d := w.row(); d.Attempts != 0 || d.Quarantined {
		t.Errorf("row %+v", d)
	}
	w.now, w.ca.behind = right.Add(time.Minute), 0
	w.renewed(false) // though the next try was set in 2099
	if len(w.ca.issued) != 1 {
		t.Errorf("%d transactions", len(w.ca.issued))
	}
}

// TestClockBehind: a CLM in 1970 gets a certificate of the present, and renews
// it in time by its own clock.
func TestClockBehind(t *testing.T) {
	w := newWorld(t)
	right := w.now
	w.now = time.Unix(0, 0)
	w.ca.behind = w.now.Sub(right)
	w.renewed(false)
	if ahead := w.row().RenewAt.Sub(w.now); ahead > 12*time.Hour+time.Minute {
		t.Errorf("renews in %s", ahead)
	}
}

func TestExpiredWhileWaiting(t *testing.T) {
	w := newWorld(t)
	w.device.refuse["verify"] = enrol.ErrUnreachable
	w.expect(false, enrol.OutcomeFailed, enrol.ClassUnreachable, "")
	delete(w.device.refuse, "verify")
	w.now = w.now.Add(25 * time.Hour)
	w.renewed(false)
	if w.row().State(w.now) != fleet.Operational {
		t.Error("an expired certificate was installed")
	}
}

func TestCAReplaced(t *testing.T) {
	w := newWorld(t)
	w.ca.err = enrol.ErrCAUnavailable
	w.expect(false, enrol.OutcomePending, enrol.ClassCAUnavail, "")
	w.ca = newCA(w, "other CA")
	w.restart()
	w.runner.CAName = "other"
	w.renewed(true)
	if w.row().Attempts != 0 {
		t.Error("counted")
	}
}
