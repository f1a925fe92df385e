package enrol_test

import (
	"crypto/x509"
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
	w.ca.Behind = w.now.Sub(right)
	w.expect(false, enrol.OutcomePending, enrol.ClassClock, "our clock")
	if d := w.row(); d.Attempts != 0 || d.Quarantined {
		t.Errorf("row %+v", d)
	}
	w.now, w.ca.Behind = right.Add(time.Minute), 0
	w.renewed(false) // though the next try was set in 2099
	if len(w.ca.Issued) != 1 {
		t.Errorf("%d transactions", len(w.ca.Issued))
	}
}

// TestClockBehind: a CLM in 1970 gets a certificate of the present, and renews
// it in time by its own clock.
func TestClockBehind(t *testing.T) {
	w := newWorld(t)
	right := w.now
	w.now = time.Unix(0, 0)
	w.ca.Behind = w.now.Sub(right)
	w.renewed(false)
	if ahead := w.row().RenewAt.Sub(w.now); ahead > 12*time.Hour+time.Minute {
		t.Errorf("renews in %s", ahead)
	}
}

func TestExpiredWhileWaiting(t *testing.T) {
	w := newWorld(t)
	w.device.Refuse["verify"] = enrol.ErrUnreachable
	w.expect(false, enrol.OutcomeFailed, enrol.ClassUnreachable, "")
	delete(w.device.Refuse, "verify")
	w.now = w.now.Add(25 * time.Hour)
	w.renewed(false)
	if w.row().State(w.now) != fleet.Operational {
		t.Error("an expired certificate was installed")
	}
}

func TestCAReplaced(t *testing.T) {
	w := newWorld(t)
	w.ca.Err = enrol.ErrCAUnavailable
	w.expect(false, enrol.OutcomePending, enrol.ClassCAUnavail, "")
	w.ca = newCA(w, "other CA")
	w.restart()
	w.runner.CAName = "other"
	w.renewed(true)
	if w.row().Attempts != 0 {
		t.Error("counted")
	}
}

// TestCAClockBehind: a CA whose clock was in 1970 for a moment has issued
// something that looks expired. As it may be our clock that is wrong, it is
// kept for a while; but not so long that the present certificate expires.
func TestCAClockBehind(t *testing.T) {
	w := newWorld(t)
	w.renewed(false)
	w.now = w.now.Add(12 * time.Hour)
	w.ca.Behind = w.now.Sub(time.Unix(0, 0))
	w.expect(false, enrol.OutcomePending, enrol.ClassClock, "cannot be judged")
	w.ca.Behind = 0
	w.now = w.now.Add(2 * time.Hour)
	w.expect(true, enrol.OutcomePending, enrol.ClassClock, "cannot be judged")
	w.now = w.now.Add(time.Hour) // an eighth of its day
	w.expect(true, enrol.OutcomePending, enrol.ClassClock, "given up")
	if d := w.row(); d.Attempts != 0 || d.State(w.now) != fleet.Operational {
		t.Errorf("row %+v", d)
	}
	w.renewed(true)
}

// TestBothClocksWrong: the CA was in 1970 and we were in 2099. Once both are
// right, that a certificate came in our future says nothing about how long it
// has been waited for.
func TestBothClocksWrong(t *testing.T) {
	w := newWorld(t)
	right := w.now
	w.now = right.AddDate(73, 0, 0)
	w.ca.Behind = w.now.Sub(time.Unix(0, 0))
	w.expect(false, enrol.OutcomePending, enrol.ClassClock, "cannot be judged")
	w.now, w.ca.Behind = right.Add(time.Minute), 0
	w.expect(false, enrol.OutcomePending, enrol.ClassClock, "given up")
	w.renewed(true)
}

// TestWrongClockWithoutDate: a CA that does not say what time it is. The
// certificate is for a key that was made just now, so it is no old one, and
// its begin says enough.
func TestWrongClockWithoutDate(t *testing.T) {
	w := newWorld(t)
	right := w.now
	w.now = right.AddDate(10, 0, 0)
	w.ca.Behind = w.now.Sub(right)
	w.ca.Alter = func(_ *x509.Certificate, a *enrol.Answer) { a.Date = time.Time{} }
	w.expect(false, enrol.OutcomePending, enrol.ClassClock, "cannot be judged")
	w.now, w.ca.Behind = right.Add(time.Minute), 0
	w.renewed(false)
	if len(w.ca.Issued) != 1 || w.row().Attempts != 0 {
		t.Errorf("%d transactions, row %+v", len(w.ca.Issued), w.row())
	}
}
