package enrol_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/enrol/enroltest"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// cutStore is a store with cut points before and after each commit.
type cutStore struct {
	enrol.Store
	w       *world
	commits int
}

func (s *cutStore) Commit(ctx context.Context, c enrol.Change) error {
	s.w.point()
	defer s.w.point()
	s.commits++
	return s.Store.Commit(ctx, c)
}

// cutQueue is a queue with cut points before and after each record.
type cutQueue struct {
	enrol.DeliveryStore
	w *world
}

func (q cutQueue) QueueDeliveries(ctx context.Context, deliveries []enrol.Delivery) (int, error) {
	q.w.point()
	defer q.w.point()
	return q.DeliveryStore.QueueDeliveries(ctx, deliveries)
}

func (q cutQueue) RecordDelivery(ctx context.Context, a enrol.Attempt) error {
	q.w.point()
	defer q.w.point()
	return q.DeliveryStore.RecordDelivery(ctx, a)
}

const device = "plc-0001"

func newWorld(t *testing.T) *world {
	w := &world{t: t, now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
	w.master = must[*ibc.MasterSecret](t)(ibc.Setup(rand.Reader, 1))
	id := must[ibc.Identity](t)(ibc.NewIdentity(ibc.RoleDevice, device, 1, 1))
	w.device = enroltest.NewDevice(must[*ibc.PrivateKey](t)(w.master.Extract(id)))
	w.device.Point = w.point
	w.ca, w.prober = newCA(w, "lab CA"), &prober{w: w}
	s := enroltest.NewStore(fleet.Device{Name: device, Identity: id, Address: "192.0.2.1:5684"})
	w.store, w.queue, w.health = s, s, s
	w.restart()
	return w
}

// restart is a new process of the CLM on the same store.
func (w *world) restart() {
	policy := enrol.DefaultPolicy()
	policy.MaxAttempts = 2
	w.runner = &enrol.Runner{
		Store: &cutStore{Store: w.store, w: w}, Deliveries: cutQueue{w.queue, w}, Dialer: w.device, CA: w.ca, CAName: "lab", Prober: w.prober, Health: w.health, Policy: policy,
		Params: func(uint32) (enrol.Verifier, error) { return w.master.Params(), nil },
		Now:    func() time.Time { return w.now }, Random: rand.Reader, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

func (w *world) run(force bool) enrol.Result {
	return w.runner.Run(context.Background(), device, force)
}

func (w *world) row() fleet.Device {
	w.t.Helper()
	return must[fleet.Device](w.t)(w.store.Device(context.Background(), device))
}

func (w *world) open() *enrol.Enrolment {
	w.t.Helper()
	e, err := w.store.OpenEnrolment(context.Background(), device)
	if errors.Is(err, enrol.ErrNotFound) {
		return nil
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

// checkWhole is the invariant of a finished enrolment: the certificate that is
// active on the device is the one that the inventory records, confirmed.
func (w *world) checkWhole() {
	w.t.Helper()
	d := w.row()
	if d.Certificate == nil || w.device.Active == nil {
		w.t.Fatal("no active certificate")
	}
	if got := sha256.Sum256(w.device.Active.Certificate); got != d.Certificate.SHA256 {
		w.t.Errorf("active on the device: %x, in the inventory: %x", got[:4], d.Certificate.SHA256[:4])
	}
	if !w.device.Confirmed {
		w.t.Error("the device still waits for its confirmation")
	}
	if d.State(w.now) != fleet.Operational || d.Attempts != 0 || d.LastError != "" || !d.NextAttempt.IsZero() {
		w.t.Errorf("row: %+v", d)
	}
	if e := w.open(); e != nil {
		w.t.Errorf("an enrolment is open in state %s", e.State)
	}
}

// expect runs once and wants an outcome and a piece of the error.
func (w *world) expect(force bool, want enrol.Outcome, class enrol.Class, text string) *enrol.Fault {
	w.t.Helper()
	result := w.run(force)
	var f *enrol.Fault
	if result.Outcome != want || !errors.As(result.Err, &f) || f.Class != class || !strings.Contains(f.Error(), text) {
		w.t.Fatalf("outcome %s, error %v (%+v); want %s, %s, %q", result.Outcome, result.Err, f, want, class, text)
	}
	return f
}

func (w *world) renewed(force bool) {
	w.t.Helper()
	if result := w.run(force); result.Outcome != enrol.OutcomeRenewed {
		w.t.Fatalf("%s: %v", result.Outcome, result.Err)
	}
	w.checkWhole()
}

func TestEnrolAndRenew(t *testing.T) {
	w := newWorld(t)
	w.renewed(false)
	first := w.row()
	if lifetime := first.Certificate.NotAfter.Sub(w.now); first.RenewAt.Before(w.now.Add(lifetime*32/100)) || first.RenewAt.After(w.now.Add(lifetime/2)) {
		t.Errorf("renew at %s", first.RenewAt)
	}
	if first.Due(w.now) || !first.Due(first.RenewAt) {
		t.Error("due at the wrong time")
	}
	w.now = w.now.Add(48 * time.Hour) // expired: renews like any other
	if w.row().State(w.now) != fleet.NotOperational {
		t.Error("operational with an expired certificate")
	}
	w.renewed(false)
	if w.row().Certificate.SHA256 == first.Certificate.SHA256 {
		t.Error("not renewed")
	}
	if w.device.Dials != 2 {
		t.Errorf("%d connections for two enrolments", w.device.Dials)
	}
}

// TestCommits: three commits for an enrolment, as decided.
func TestCommits(t *testing.T) {
	w := newWorld(t)
	w.renewed(false)
	if n := w.runner.Store.(*cutStore).commits; n != 3 {
		t.Errorf("%d commits", n)
	}
}

// TestEveryCut kills the CLM before and after every effect of every state, and
// then lets a new process resume. A CA that issues twice for a repeated request
// makes the orphan visible.
func TestEveryCut(t *testing.T) {
	total := func() int {
		w := newWorld(t)
		withProber(w)
		w.renewed(false)
		return w.points
	}()
	if total < 20 {
		t.Fatalf("only %d cut points", total)
	}
	for cut := 1; cut <= total; cut++ {
		for _, rolledBack := range []bool{false, true} {
			w := newWorld(t)
			withProber(w)
			w.renewed(false)
			before := w.row().Certificate.SHA256
			w.now = w.now.Add(24 * time.Hour)
			w.points, w.cut = 0, cut
			w.runUntilKilled()
			w.cut = 0
			if rolledBack && w.device.Active != nil && !w.device.Confirmed {
				w.device.RollBack()
			}
			w.restart()
			w.now = w.now.Add(2 * time.Hour)
			if w.row().Certificate.SHA256 == before { // else it died after the last commit
				w.renewed(false)
			}
			w.checkWhole()
			if w.row().Certificate.SHA256 == before {
				t.Errorf("cut %d: not renewed", cut)
			}
			for id, n := range w.ca.Issued {
				if n > 2 {
					t.Errorf("cut %d: %d certificates for transaction %s", cut, n, id)
				}
			}
			if len(w.ca.Issued) > 2 {
				t.Errorf("cut %d: %d transactions for two enrolments: a submitted one was forgotten", cut, len(w.ca.Issued))
			}
		}
	}
}

func (w *world) runUntilKilled() { w.untilKilled(func() { w.run(true) }) }

// untilKilled runs something that is killed at the cut.
func (w *world) untilKilled(run func()) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(killed); !ok {
				panic(r)
			}
		}
	}()
	run()
	w.t.Fatalf("cut %d was not reached", w.cut)
}

func TestTransientFailuresKeepTheState(t *testing.T) {
	unreachable := errors.Join(enrol.ErrUnreachable, errors.New("no route"))
	for _, tt := range []struct {
		call  string
		state enrol.State
	}{
		{"dial", enrol.Requested}, {"csr", enrol.Requested}, {"verify", enrol.PreVerified},
		{"activate", enrol.Verified}, {"status", enrol.Requested}, {"read back", enrol.Activated}, {"confirm", enrol.Activated},
	} {
		t.Run(tt.call, func(t *testing.T) {
			w := newWorld(t)
			w.device.Refuse[tt.call] = unreachable
			w.expect(false, enrol.OutcomeFailed, enrol.ClassUnreachable, "no route")
			e, d := w.open(), w.row()
			if e == nil || e.State != tt.state || e.Tries != 1 || d.Attempts != 0 || d.LastError == "" {
				t.Fatalf("enrolment %+v\nrow %+v", e, d)
			}
			if result := w.run(false); result.Outcome != enrol.OutcomeSkipped || !errors.Is(result.Err, enrol.ErrNotNow) {
				t.Errorf("before its next try: %+v", result)
			}
			w.expect(true, enrol.OutcomeFailed, enrol.ClassUnreachable, "no route")
			if again := w.open(); !again.NextTry.After(e.NextTry) {
				t.Errorf("no back-off: %s, then %s", e.NextTry, again.NextTry)
			}
			delete(w.device.Refuse, tt.call)
			w.restart()
			w.now = w.now.Add(time.Hour)
			w.renewed(false)
			if len(w.ca.Issued) != 1 {
				t.Errorf("%d transactions", len(w.ca.Issued))
			}
		})
	}
}

func TestCAUnavailableIsPending(t *testing.T) {
	w := newWorld(t)
	w.ca.Err = &enrol.TryLater{After: 3 * time.Minute, Err: errors.New("HTTP 503")}
	w.expect(false, enrol.OutcomePending, enrol.ClassCAUnavail, "503")
	if got := w.row().NextAttempt.Sub(w.now); got != 3*time.Minute {
		t.Errorf("next try in %s", got)
	}
	w.ca.Err, w.ca.PendingAnswers = nil, 1
	w.expect(true, enrol.OutcomePending, enrol.ClassCAPending, "not decided")
	w.renewed(true)
}

func TestUnauthenticatedCAAnswerIsTransient(t *testing.T) {
	w := newWorld(t)
	w.ca.Err = enrol.ErrCAUnauthenticated
	w.expect(false, enrol.OutcomePending, enrol.ClassCAUnavail, "not authenticated")
	if w.row().Attempts != 0 {
		t.Error("counted")
	}
}

func TestRejectionsQuarantine(t *testing.T) {
	w := newWorld(t)
	w.ca.Err = &enrol.CARejection{FailInfo: "badRequest", Text: "wrong challenge"}
	f := w.expect(false, enrol.OutcomeFailed, enrol.ClassCARejected, "badRequest (wrong challenge)")
	if f.By != enrol.PartyCA || w.open() != nil {
		t.Errorf("%+v", f)
	}
	if got := w.row().NextAttempt.Sub(w.now); got < enrol.DefaultPolicy().Floor {
		t.Errorf("below the issuance floor: %s", got)
	}
	w.expect(true, enrol.OutcomeFailed, enrol.ClassCARejected, "badRequest")
	if d := w.row(); !d.Quarantined || d.Attempts != 2 {
		t.Errorf("row: %+v", d)
	}
	if result := w.run(true); result.Outcome != enrol.OutcomeSkipped || !strings.Contains(result.Err.Error(), "quarantined") {
		t.Errorf("a quarantined device: %+v", result)
	}
}

func TestUnknownEnrolmentIsNotCounted(t *testing.T) {
	w := newWorld(t)
	w.device.Refuse["verify"] = &enrol.DeviceError{Problem: enrol.ProblemUnknown, Detail: "no such enrolment"}
	w.expect(false, enrol.OutcomeFailed, enrol.ClassSuperseded, "no such enrolment")
	if d := w.row(); d.Attempts != 0 || w.open() != nil {
		t.Errorf("row: %+v", d)
	}
	delete(w.device.Refuse, "verify")
	w.renewed(true)
}

// TestDeviceLostItsKey: the CLM died with a submitted transaction, and the
// device was reset meanwhile: it makes another key for the same enrolment. The
// certificate of the lost key must not be asked for.
func TestDeviceLostItsKey(t *testing.T) {
	w := newWorld(t)
	w.ca.Err = enrol.ErrCAUnavailable
	w.expect(false, enrol.OutcomePending, enrol.ClassCAUnavail, "")
	w.device.Pending, w.ca.Err = nil, nil
	w.restart()
	w.expect(true, enrol.OutcomeFailed, enrol.ClassSuperseded, "no longer has the key")
	if len(w.ca.Issued) != 0 || w.row().Attempts != 0 {
		t.Errorf("issued %v", w.ca.Issued)
	}
	w.renewed(true)
}

func TestHookFailureRollsBackAndIsTriedAgain(t *testing.T) {
	w := newWorld(t)
	w.renewed(false)
	w.now = w.now.Add(24 * time.Hour)
	w.device.HookFails = 1
	w.expect(false, enrol.OutcomeFailed, enrol.ClassHook, "the hook exited with 1")
	if e := w.open(); e == nil || e.State != enrol.Verified {
		t.Fatalf("enrolment %+v", e)
	}
	w.renewed(true)
	if len(w.ca.Issued) != 2 {
		t.Errorf("%d transactions for two enrolments", len(w.ca.Issued))
	}
	w.device.HookFails = 99
	for range enrol.DefaultPolicy().HookTries {
		w.expect(true, enrol.OutcomeFailed, enrol.ClassHook, "")
	}
	if d := w.row(); w.open() != nil || d.Attempts != 1 {
		t.Errorf("row %+v, open %+v", d, w.open())
	}
}

// TestForgedProofRefused: a device that cannot sign the statement has not
// verified anything; the certificate is never activated.
func TestForgedProofRefused(t *testing.T) {
	w := newWorld(t)
	w.device.TamperProof = true
	f := w.expect(false, enrol.OutcomeFailed, enrol.ClassDeviceVerify, "proof does not hold")
	if f.By != enrol.PartyCLM || w.device.Calls["activate"] != 0 || w.row().Certificate != nil {
		t.Errorf("%+v", f)
	}
}

func TestInterruptedRunBlamesNobody(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	result := w.runner.Run(ctx, device, false)
	if result.Outcome != enrol.OutcomePending || !errors.Is(result.Err, context.Canceled) {
		t.Errorf("%+v", result)
	}
	if d := w.row(); d.LastError != "" || d.Attempts != 0 {
		t.Errorf("row %+v", d)
	}
}

// TestInterruptedRunKeepsTheCertificate: a run that is ended while the CA
// answers does not forget what the CA issued.
func TestInterruptedRunKeepsTheCertificate(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(context.Background())
	w.ca.Alter = func(*x509.Certificate, *enrol.Answer) { cancel() }
	if result := w.runner.Run(ctx, device, false); result.Outcome != enrol.OutcomePending {
		t.Fatalf("%+v", result)
	}
	if e := w.open(); e == nil || len(e.Certificate) == 0 || w.row().LastError != "" {
		t.Fatalf("enrolment %+v", e)
	}
	w.restart()
	w.renewed(false)
	if n := len(w.ca.Issued); n != 1 || w.ca.Serial != 101 {
		t.Errorf("%d transactions, serial %d", n, w.ca.Serial)
	}
}

func TestPausedIsSkipped(t *testing.T) {
	w := newWorld(t)
	w.store = enroltest.NewStore(fleet.Device{Name: device, Identity: w.device.Identity(), Paused: true})
	w.restart()
	if result := w.run(true); result.Outcome != enrol.OutcomeSkipped {
		t.Errorf("%+v", result)
	}
}

func TestUnknownDevice(t *testing.T) {
	w := newWorld(t)
	if result := w.runner.Run(context.Background(), "nobody", false); !errors.Is(result.Err, enrol.ErrNotFound) {
		t.Errorf("%+v", result)
	}
}
