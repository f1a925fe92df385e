package enrol_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/enrol/enroltest"
	"github.com/edgeclm/edgeclm/internal/fleet"
)

// prober says what it is told, and keeps what it was asked.
type prober struct {
	w     *world
	err   error
	asked []enrol.Probe
}

func (p *prober) Probe(_ context.Context, q enrol.Probe) error {
	p.w.point()
	defer p.w.point()
	p.asked = append(p.asked, q)
	return p.err
}

func notServed(what string) error { return fmt.Errorf("%w: %s", enrol.ErrNotServed, what) }

// withProber gives the world's device a TLS endpoint.
func withProber(w *world) *prober {
	w.device.Endpoint = ":8883"
	return w.prober
}

func (w *world) events(kind enrol.EventKind) []enrol.Event {
	var out []enrol.Event
	for _, e := range w.store.(*enroltest.Store).Events() {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

// TestProbe: the certificate is confirmed once a handshake has shown it.
func TestProbe(t *testing.T) {
	w := newWorld(t)
	p := withProber(w)
	w.renewed(false)
	q := p.asked[0]
	if len(p.asked) != 1 || q.Endpoint != ":8883" || q.Vouched || q.Device.Name != device || len(q.Names) != 1 || q.Names[0] != device ||
		q.Certificate != sha256.Sum256(w.device.Active.Certificate) {
		t.Errorf("asked %+v", p.asked)
	}
	if served := w.events(enrol.EventServed); len(served) != 1 || !strings.Contains(served[0].Message, ":8883") {
		t.Errorf("events %+v", served)
	}
	// An operator's endpoint goes before the device's, and may be none.
	w.runner.Profiles = []fleet.Profile{{Endpoint: "gateway.example:443"}}
	w.renewed(true)
	if q := p.asked[1]; q.Endpoint != "gateway.example:443" || !q.Vouched {
		t.Errorf("asked %+v", q)
	}
	w.runner.Profiles = []fleet.Profile{{Endpoint: fleet.NoEndpoint}}
	w.renewed(true)
	w.runner.Profiles, w.device.Endpoint = nil, ""
	w.renewed(true)
	if len(p.asked) != 2 {
		t.Errorf("asked %+v", p.asked[2:])
	}
	// What must not be looked at holds up nobody, but is seen.
	w.device.Endpoint, p.err = "192.0.2.99:22", fmt.Errorf("%w: not its own", enrol.ErrNotProbed)
	w.renewed(true)
	if warnings := w.events(enrol.EventWarning); len(warnings) != 1 || !strings.Contains(warnings[0].Message, "not its own") {
		t.Errorf("warnings %+v", warnings)
	}
}

// TestNotServed: a certificate that is active but not served is taken back,
// and tried again; after so many times the enrolment ends, as with a hook that
// fails.
func TestNotServed(t *testing.T) {
	w := newWorld(t)
	p := withProber(w)
	w.renewed(false)
	first := w.row().Certificate.SHA256
	p.err = notServed("it presents certificate beef")
	f := w.expect(true, enrol.OutcomeFailed, enrol.ClassNotServed, "beef")
	e := w.open()
	if f.By != enrol.PartyDevice || e == nil || e.State != enrol.Verified || e.Rollbacks != 1 || e.Tries != 1 {
		t.Fatalf("enrolment %+v", e)
	}
	if got := sha256.Sum256(w.device.Active.Certificate); got != first || w.row().Certificate.SHA256 != first || w.device.Calls["confirm"] != 1 {
		t.Errorf("active %x, on record %x", got[:4], w.row().Certificate.SHA256[:4])
	}
	if events := w.events(enrol.EventRolledBack); len(events) != 1 || !strings.Contains(events[0].Message, "beef") {
		t.Errorf("events %+v", events)
	}
	p.err = nil
	w.renewed(true)
	if len(w.ca.Issued) != 2 {
		t.Errorf("%d transactions for two enrolments", len(w.ca.Issued))
	}
	p.err = notServed("nobody there")
	for range enrol.DefaultPolicy().HookTries {
		w.expect(true, enrol.OutcomeFailed, enrol.ClassNotServed, "")
	}
	if d := w.row(); w.open() != nil || d.Attempts != 1 {
		t.Errorf("row %+v, open %+v", d, w.open())
	}
}

// TestNotServedWithoutPrevious: the first certificate of a device is not taken
// back. It is neither confirmed nor replaced by another one that would be
// served no better, for as long as it lasts; nobody is quarantined for that.
func TestNotServedWithoutPrevious(t *testing.T) {
	w := newWorld(t)
	p := withProber(w)
	p.err = notServed("nobody there")
	for range 10 {
		w.expect(true, enrol.OutcomeFailed, enrol.ClassNotServed, "there is no previous pair")
	}
	if e, d := w.open(), w.row(); e == nil || e.State != enrol.Activated || d.Attempts != 0 || len(w.ca.Issued) != 1 || w.device.Confirmed {
		t.Fatalf("enrolment %+v, row %+v", e, d)
	}
	w.now = w.now.Add(25 * time.Hour) // expired: that is on record, and renewed
	if result := w.run(true); result.Outcome != enrol.OutcomeRenewed {
		t.Fatalf("%+v", result)
	}
	p.err = nil
	w.renewed(true)
}

// TestCannotTakeBack: the device is lost between probe and rollback, and goes
// back by itself.
func TestCannotTakeBack(t *testing.T) {
	w := newWorld(t)
	p := withProber(w)
	w.renewed(false)
	p.err, w.device.Refuse["rollback"] = notServed("nobody there"), errors.Join(enrol.ErrUnreachable, errors.New("no route"))
	w.expect(true, enrol.OutcomeFailed, enrol.ClassNotServed, "no route")
	if e := w.open(); e.State != enrol.Activated {
		t.Fatalf("enrolment %+v", e)
	}
	w.device.RollBack()
	w.expect(true, enrol.OutcomeFailed, enrol.ClassUnconfirmed, "not confirmed within")
	p.err = nil
	w.renewed(true)
}

// TestUnconfirmedBlamesNobody: a CLM that is never there in time to confirm
// has the device go back and forth, ever more seldom, but not quarantined.
func TestUnconfirmedBlamesNobody(t *testing.T) {
	w := newWorld(t)
	w.renewed(false)
	unreachable := errors.Join(enrol.ErrUnreachable, errors.New("gone"))
	last := time.Duration(0)
	for range 12 {
		w.device.Refuse["read back"] = unreachable
		w.expect(true, enrol.OutcomeFailed, enrol.ClassUnreachable, "gone")
		delete(w.device.Refuse, "read back")
		w.device.RollBack()
		w.expect(true, enrol.OutcomeFailed, enrol.ClassUnconfirmed, "not confirmed within")
		d := w.row()
		wait := d.NextAttempt.Sub(w.now)
		if wait < last*2/3 || d.Attempts != 0 || d.Quarantined || w.open() == nil {
			t.Fatalf("wait %v after %v, row %+v", wait, last, d)
		}
		last = wait
	}
	if want := enrol.DefaultPolicy().RetryLongest; last < want*8/10 || last > want*12/10 {
		t.Errorf("wait %v", last)
	}
	w.renewed(true)
}

// TestDeviceWentBack: at the next contact the inventory follows what the device
// has, and says so, before anything is repeated.
func TestDeviceWentBack(t *testing.T) {
	w := newWorld(t)
	w.renewed(false)
	first := *w.row().Certificate
	w.now = w.now.Add(12 * time.Hour)
	w.renewed(true)
	second := *w.row().Certificate
	w.device.RollBack()
	w.device.LastError = "rolled back by hand"
	w.ca.Err = enrol.ErrCAUnavailable
	w.expect(true, enrol.OutcomePending, enrol.ClassCAUnavail, "")
	d := w.row()
	if d.Certificate == nil || d.Certificate.SHA256 != first.SHA256 || !d.EnrolledAt.Equal(w.now) || !d.Due(w.now.Add(time.Minute)) {
		t.Errorf("row %+v", d)
	}
	events := w.events(enrol.EventRolledBack)
	if len(events) != 1 || !strings.Contains(events[0].Message, first.Serial) || !strings.Contains(events[0].Message, second.Serial) ||
		!strings.Contains(events[0].Message, "by hand") {
		t.Errorf("events %+v", events)
	}
	w.restart()
	w.expect(true, enrol.OutcomePending, enrol.ClassCAUnavail, "")
	if again := w.events(enrol.EventRolledBack); len(again) != 1 {
		t.Errorf("said again: %+v", again)
	}
	w.ca.Err = nil
	w.renewed(true)
}

// TestDeviceHasWhatNobodyKnows: a device that was reset, one with a certificate
// that is not on record, and one with another device's.
func TestDeviceHasWhatNobodyKnows(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*world)
		want   string
	}{
		"reset":   {func(w *world) { w.device.Active, w.device.Previous = nil, nil }, "no active certificate any more"},
		"unknown": {func(w *world) { w.device.Active.Certificate = w.ca.Root.Raw }, "not on record here"},
		"another's": {func(w *world) {
			w.device.Active.Certificate = w.ca.Root.Raw
			err := w.store.(*enroltest.Store).PutEnrolment(enrol.Enrolment{ID: enrol.ID{9}, Device: "plc-9", State: enrol.Completed, Certificate: w.ca.Root.Raw})
			if err != nil {
				w.t.Fatal(err)
			}
		}, "issued for plc-9"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.renewed(false)
			tt.change(w)
			w.ca.Err = enrol.ErrCAUnavailable
			w.expect(true, enrol.OutcomePending, enrol.ClassCAUnavail, "")
			w.restart()
			w.expect(true, enrol.OutcomePending, enrol.ClassCAUnavail, "")
			if d := w.row(); d.Certificate != nil || d.State(w.now) != fleet.NotOperational {
				t.Errorf("row %+v", d)
			}
			if warnings := w.events(enrol.EventWarning); len(warnings) != 1 || !strings.Contains(warnings[0].Message, tt.want) {
				t.Errorf("warnings %+v", warnings)
			}
			w.ca.Err = nil
			w.renewed(true)
		})
	}
}

// TestRollback: an operator has a device go back. It is asked what it has
// first, so that a second wish does no more than the first.
func TestRollback(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	if _, err := w.runner.Rollback(ctx, device); !errors.Is(err, enrol.ErrNothingActive) {
		t.Errorf("nothing enrolled: %v", err)
	}
	w.renewed(false)
	first := *w.row().Certificate
	_, err := w.runner.Rollback(ctx, device)
	var refusal *enrol.DeviceError
	if !errors.As(err, &refusal) || refusal.Problem != enrol.ProblemConflict {
		t.Errorf("no previous pair: %v", err)
	}
	w.now = w.now.Add(12 * time.Hour)
	w.renewed(true)
	second := *w.row().Certificate
	result, err := w.runner.Rollback(ctx, device)
	if err != nil || result.Already || result.From.SHA256 != second.SHA256 || result.Device.Certificate.SHA256 != first.SHA256 {
		t.Fatalf("%+v, %v", result, err)
	}
	if d := w.row(); d.Certificate.SHA256 != first.SHA256 || len(w.events(enrol.EventRolledBack)) != 1 || w.open() != nil {
		t.Errorf("row %+v", d)
	}
	w.renewed(false) // its certificate is in its last quarter
	if w.row().Certificate.SHA256 == second.SHA256 {
		t.Error("the certificate that was given up is active again")
	}
	w.device.RollBack() // by hand; somebody asks for the same at the CLM
	result, err = w.runner.Rollback(ctx, device)
	if err != nil || !result.Already || result.Device.Certificate.SHA256 != first.SHA256 || w.device.Calls["rollback"] != 2 {
		t.Errorf("%+v, %v, %v", result, err, w.device.Calls)
	}
}

// TestRollbackOnTrial: what was not confirmed yet goes back to verified.
func TestRollbackOnTrial(t *testing.T) {
	w := newWorld(t)
	w.renewed(false)
	first := w.row().Certificate.SHA256
	w.device.Refuse["confirm"] = errors.Join(enrol.ErrUnreachable, errors.New("gone"))
	w.expect(true, enrol.OutcomeFailed, enrol.ClassUnreachable, "gone")
	result, err := w.runner.Rollback(context.Background(), device)
	if err != nil || result.From.SHA256 == first || result.Device.Certificate.SHA256 != first {
		t.Fatalf("%+v, %v", result, err)
	}
	if e := w.open(); e == nil || e.State != enrol.Verified || !e.NextTry.After(w.now) {
		t.Errorf("enrolment %+v", e)
	}
	delete(w.device.Refuse, "confirm")
	w.renewed(true)
	if len(w.ca.Issued) != 2 {
		t.Errorf("%d transactions", len(w.ca.Issued))
	}
}

// TestRollbackUnreachable changes nothing.
func TestRollbackUnreachable(t *testing.T) {
	w := newWorld(t)
	w.renewed(false)
	before := w.row()
	w.device.Refuse["dial"] = enrol.ErrUnreachable
	if _, err := w.runner.Rollback(context.Background(), device); !errors.Is(err, enrol.ErrUnreachable) {
		t.Error(err)
	}
	if after := w.row(); after.Certificate.SHA256 != before.Certificate.SHA256 || after.LastError != "" {
		t.Errorf("row %+v", after)
	}
	release, err := w.store.Lease(context.Background(), device)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if _, err := w.runner.Rollback(context.Background(), device); !errors.Is(err, enrol.ErrLeased) {
		t.Error(err)
	}
}
