package enrol_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/enrol/enroltest"
	"github.com/edgeclm/edgeclm/internal/fleet"
)

// site is a plant with a clock that the test sets.
type site struct {
	*enroltest.Plant
	t      *testing.T
	now    time.Time
	runner *enrol.Runner
	writes int
}

func newSite(t *testing.T, n int) *site {
	t.Helper()
	s := &site{t: t, now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
	s.Plant = must[*enroltest.Plant](t)(enroltest.NewPlant(n, func() time.Time { return s.now }))
	s.Store.OnCommit = func(enrol.Change) error { s.writes++; return nil }
	s.runner = s.Runner(enrol.DefaultPolicy())
	return s
}

// pass tries every due device once, and counts the outcomes.
func (s *site) pass() map[enrol.Outcome]int {
	out := map[enrol.Outcome]int{}
	for _, d := range s.Store.Due(s.now, s.runner.Policy.LongestWait()) {
		out[s.runner.Run(context.Background(), d.Name, false).Outcome]++
	}
	return out
}

func (s *site) breaker() enrol.Breaker {
	s.t.Helper()
	return must[enrol.Breaker](s.t)(s.Store.Breaker(context.Background(), enroltest.CAName))
}

// TestWrongChallengeQuarantinesNobody: a CA that rejects every device is not
// the devices' fault, and all renew once the cause is gone.
func TestWrongChallengeQuarantinesNobody(t *testing.T) {
	t.Parallel()
	s := newSite(t, 20)
	s.CA.Refuse = func(string, enrol.Submission) error {
		return &enrol.CARejection{FailInfo: "badRequest", Text: "wrong challenge"}
	}
	for range 24 * 12 { // a day
		s.pass()
		s.now = s.now.Add(5 * time.Minute)
	}
	for _, d := range s.Store.Devices() {
		if d.Quarantined {
			t.Errorf("%s is quarantined after %d attempts", d.Name, d.Attempts)
		}
	}
	if s.CA.Asked > 24*6+10 { // once in ten minutes, and to begin with
		t.Errorf("the CA was asked %d times in a day", s.CA.Asked)
	}
	s.CA.Refuse = nil
	for range 10 {
		s.now = s.now.Add(10 * time.Minute)
		s.pass()
	}
	for _, d := range s.Store.Devices() {
		if d.State(s.now) != fleet.Operational {
			t.Errorf("%s has no certificate: %s", d.Name, d.LastError)
		}
	}
}

// TestOneRejectedDevice: a device that alone is rejected is quarantined by the
// paper's rule, however many others succeed.
func TestOneRejectedDevice(t *testing.T) {
	t.Parallel()
	s := newSite(t, 5)
	bad := s.Names[3]
	s.CA.Refuse = func(device string, _ enrol.Submission) error {
		if device == bad {
			return &enrol.CARejection{FailInfo: "badRequest"}
		}
		return nil
	}
	for range 30 {
		s.pass()
		s.now = s.now.Add(30 * time.Minute)
	}
	for _, d := range s.Store.Devices() {
		if d.Quarantined != (d.Name == bad) {
			t.Errorf("%s: quarantined %v", d.Name, d.Quarantined)
		}
	}
	if b := s.breaker(); b.State != enrol.BreakerClosed {
		t.Errorf("%+v", b)
	}
}

// TestCADown: three devices find out, the others make no key pair and write
// nothing; one at a time looks whether it is back, and then all renew.
func TestCADown(t *testing.T) {
	t.Parallel()
	s := newSite(t, 10)
	s.CA.Err = enrol.ErrCAUnavailable
	s.pass()
	b := s.breaker()
	if b.State != enrol.BreakerOpen || b.Class != enrol.ClassCAUnavail || !b.Until.Equal(s.now.Add(time.Minute)) || s.CA.Asked != 3 {
		t.Fatalf("%d asked, %+v", s.CA.Asked, b)
	}
	writes, key := s.writes, 0
	for _, name := range s.Names {
		r := s.runner.Run(context.Background(), name, true)
		var f *enrol.Fault
		if r.Outcome != enrol.OutcomePending || !errors.As(r.Err, &f) || f.Class != enrol.ClassCAUnavail || !errors.Is(r.Err, enrol.ErrNotAsked) || f.After != time.Minute {
			t.Fatalf("%s: %v", r.Outcome, r.Err)
		}
		key += s.Devices[name].Calls[enroltest.CallCSR]
	}
	if s.writes != writes || s.CA.Asked != 3 || key != 3 {
		t.Errorf("%d writes, %d asked, %d key pairs", s.writes-writes, s.CA.Asked, key)
	}
	var waits []time.Duration
	for range 7 {
		s.now = s.breaker().Until
		before := s.CA.Asked
		for _, name := range s.Names {
			s.runner.Run(context.Background(), name, true)
		}
		if s.CA.Asked != before+1 {
			t.Errorf("half-open: %d asked", s.CA.Asked-before)
		}
		waits = append(waits, s.breaker().Until.Sub(s.now))
	}
	if fmt.Sprint(waits) != "[2m0s 4m0s 8m0s 10m0s 10m0s 10m0s 10m0s]" {
		t.Errorf("waits %v", waits)
	}
	s.CA.Err = nil
	s.now = s.breaker().Until
	for _, name := range s.Names {
		if r := s.runner.Run(context.Background(), name, true); r.Outcome != enrol.OutcomeRenewed {
			t.Errorf("%s: %v", r.Outcome, r.Err)
		}
	}
	if b := s.breaker(); b.State != enrol.BreakerClosed || b.Opened != 0 || !b.LastSuccess.Equal(s.now) {
		t.Errorf("%+v", b)
	}
}

// TestProbeIsPassedOn: a device that was to find out whether the CA is back,
// and could not be reached, lets the next one.
func TestProbeIsPassedOn(t *testing.T) {
	t.Parallel()
	s := newSite(t, 5)
	s.CA.Err = enrol.ErrCAUnavailable
	s.pass()
	s.CA.Err = nil
	s.now = s.breaker().Until
	s.Devices[s.Names[4]].Break(enroltest.Fault{Kind: enroltest.Unreachable})
	s.runner.Run(context.Background(), s.Names[4], true)
	if b := s.breaker(); b.State != enrol.BreakerHalfOpen || b.Probing != "" {
		t.Errorf("%+v", b)
	}
	if r := s.runner.Run(context.Background(), s.Names[3], true); r.Outcome != enrol.OutcomeRenewed {
		t.Errorf("%s: %v", r.Outcome, r.Err)
	}
}

// TestSuccessIsCheap: the breaker is written once a minute.
func TestSuccessIsCheap(t *testing.T) {
	t.Parallel()
	s := newSite(t, 50)
	if got := s.pass()[enrol.OutcomeRenewed]; got != 50 {
		t.Fatalf("%d renewed", got)
	}
	if n := s.Store.BreakerWrites(); n != 1 {
		t.Errorf("%d writes of the breaker for 50 enrolments", n)
	}
}

// TestMismatchesOpenTheBreaker: DESIGN section 2.
func TestMismatchesOpenTheBreaker(t *testing.T) {
	t.Parallel()
	s := newSite(t, 4)
	s.CA.Refuse = func(string, enrol.Submission) error { return &enrol.CAMismatch{What: "the certificate of another"} }
	s.pass()
	attempts := 0
	for _, d := range s.Store.Devices() {
		attempts += d.Attempts
	}
	if b := s.breaker(); b.State != enrol.BreakerOpen || b.Class != enrol.ClassCAMismatch || s.CA.Asked != 2 || attempts != 1 {
		t.Errorf("%d asked, %d attempts counted, %+v", s.CA.Asked, attempts, b)
	}
	s.CA.Refuse = nil
	for _, name := range s.Names {
		if r := s.runner.Run(context.Background(), name, true); !errors.Is(r.Err, enrol.ErrNotAsked) {
			t.Errorf("%s: %v", r.Outcome, r.Err)
		}
	}
	s.now = s.breaker().Until
	for _, name := range s.Names {
		if r := s.runner.Run(context.Background(), name, true); r.Outcome != enrol.OutcomeRenewed {
			t.Errorf("%s: %v", r.Outcome, r.Err)
		}
	}
}

// TestMismatchesOfOneCA: those of different devices within the window add up;
// what a clock that was ahead has recorded does not.
func TestMismatchesOfOneCA(t *testing.T) {
	t.Parallel()
	p := enrol.DefaultPolicy()
	p.BreakerDevice = 3
	start := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	type failure struct {
		device string
		after  time.Duration
	}
	for name, tt := range map[string]struct {
		failures []failure
		blamed   bool
	}{
		"two devices":               {[]failure{{"a", 0}, {"b", 0}}, false},
		"three devices":             {[]failure{{"a", 0}, {"b", 0}, {"c", 0}}, true},
		"one again and again":       {[]failure{{"a", 0}, {"a", 1}, {"b", 2}, {"a", 3}}, false},
		"at the window's end":       {[]failure{{"a", 0}, {"b", 1}, {"c", p.BreakerWindow}}, true},
		"after the window":          {[]failure{{"a", 0}, {"b", 1}, {"c", p.BreakerWindow + 1}}, false},
		"renewed in the window":     {[]failure{{"a", 0}, {"b", 1}, {"a", 2}, {"c", p.BreakerWindow + 1}}, true},
		"by a clock that was ahead": {[]failure{{"a", 73 * 365 * 24 * time.Hour}, {"b", 1}, {"c", 2}}, false},
		"by one that was behind":    {[]failure{{"a", -73 * 365 * 24 * time.Hour}, {"b", 1}, {"c", 2}}, false},
	} {
		var b enrol.Breaker
		var blamed bool
		for _, f := range tt.failures {
			blamed = b.Failed(start.Add(f.after), f.device, &enrol.Fault{Class: enrol.ClassCAMismatch, Err: errors.New("no")}, p)
		}
		if blamed != tt.blamed || (b.State == enrol.BreakerOpen) != tt.blamed {
			t.Errorf("%s: blamed %v, %+v", name, blamed, b)
		}
	}
}

// TestMaintenance: in a maintenance window nobody is asked anything.
func TestMaintenance(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	s.runner.Limits.Calendar = must[fleet.Calendar](t)(fleet.ParseCalendar([]string{"11:00-13:00"}, time.UTC))
	r := s.runner.Run(context.Background(), s.Names[0], true)
	var f *enrol.Fault
	if !errors.As(r.Err, &f) || !errors.Is(r.Err, enrol.ErrNotAsked) || f.After != time.Hour || s.CA.Asked != 0 || s.writes != 0 {
		t.Errorf("%s: %v", r.Outcome, r.Err)
	}
	s.now = s.now.Add(f.After)
	if r := s.runner.Run(context.Background(), s.Names[0], false); r.Outcome != enrol.OutcomeRenewed {
		t.Errorf("%s: %v", r.Outcome, r.Err)
	}
}

// TestRenewedMeanwhile: two runs on one inventory that found the same device
// due renew it once.
func TestRenewedMeanwhile(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3)
	other := s.Runner(enrol.DefaultPolicy())
	for _, name := range s.Names {
		if r := s.runner.Run(context.Background(), name, false); r.Outcome != enrol.OutcomeRenewed {
			t.Fatal(r.Err)
		}
		if r := other.Run(context.Background(), name, false); r.Outcome != enrol.OutcomeSkipped || !errors.Is(r.Err, enrol.ErrNotNow) {
			t.Errorf("%s: %v", r.Outcome, r.Err)
		}
	}
	if len(s.CA.Issued) != 3 {
		t.Errorf("%d issued", len(s.CA.Issued))
	}
	if r := other.Run(context.Background(), s.Names[0], true); r.Outcome != enrol.OutcomeRenewed {
		t.Errorf("forced: %s: %v", r.Outcome, r.Err)
	}
}

// TestExpiredDeviceRenews: the channel does not expire with the certificate, so
// a device that was off for years renews like any other.
func TestExpiredDeviceRenews(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1)
	name := s.Names[0]
	if r := s.runner.Run(context.Background(), name, false); r.Outcome != enrol.OutcomeRenewed {
		t.Fatal(r.Err)
	}
	for _, away := range []time.Duration{25 * time.Hour, 90 * 24 * time.Hour, 9 * 365 * 24 * time.Hour} {
		s.now = s.now.Add(away)
		before := must[fleet.Device](t)(s.Store.Device(context.Background(), name))
		if before.State(s.now) != fleet.NotOperational {
			t.Fatal("not expired")
		}
		r := s.runner.Run(context.Background(), name, false)
		after := must[fleet.Device](t)(s.Store.Device(context.Background(), name))
		if r.Outcome != enrol.OutcomeRenewed || after.State(s.now) != fleet.Operational || after.Certificate.SHA256 == before.Certificate.SHA256 || after.Attempts != 0 {
			t.Errorf("expired for %v: %s: %v", away, r.Outcome, r.Err)
		}
	}
}

// TestShortLifetimes: certificates of two minutes are renewed before they end,
// and those of seconds do not have the CA asked in a loop.
func TestShortLifetimes(t *testing.T) {
	t.Parallel()
	for lifetime, most := range map[time.Duration]int{2 * time.Minute: 31, 5 * time.Second: 62} {
		s := newSite(t, 1)
		s.CA.Alter = func(c *x509.Certificate, _ *enrol.Answer) { c.NotBefore = s.now }
		s.CA.Lifetime = lifetime
		expired := 0
		for range 20 * 60 {
			s.pass()
			s.now = s.now.Add(time.Second)
			if s.Store.Devices()[0].State(s.now) != fleet.Operational {
				expired++
			}
		}
		if lifetime > time.Minute && expired > 0 {
			t.Errorf("%v: expired for %d seconds", lifetime, expired)
		}
		if most *= 2; s.CA.Asked > most {
			t.Errorf("%v: the CA was asked %d times in 20 minutes", lifetime, s.CA.Asked)
		}
	}
}
