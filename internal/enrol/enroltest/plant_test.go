package enroltest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/enrol/enroltest"
	"github.com/edgeclm/edgeclm/internal/fleet"
)

func plant(t testing.TB, n int) (*enroltest.Plant, *time.Time) {
	t.Helper()
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	p, err := enroltest.NewPlant(n, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	return p, &now
}

func TestPlant(t *testing.T) {
	t.Parallel()
	p, now := plant(t, 5)
	p.Store.Keep = 1
	runner := p.Runner(enrol.DefaultPolicy())
	for range 3 {
		for _, name := range p.Names {
			if r := runner.Run(context.Background(), name, false); r.Outcome != enrol.OutcomeRenewed {
				t.Fatalf("%s: %s: %v", name, r.Outcome, r.Err)
			}
		}
		if due := p.Store.Due(*now, time.Hour); len(due) != 0 {
			t.Errorf("%d are due at once", len(due))
		}
		next := p.Store.NextDue(*now)
		if n, err := p.Store.PlannedRenewals(context.Background(), *now, now.Add(12*time.Hour+1)); n != 5 || err != nil {
			t.Errorf("%d planned, %v", n, err)
		}
		*now = next
		if due := p.Store.Due(*now, time.Hour); len(due) != 1 || !due[0].RenewAt.Equal(next) {
			t.Errorf("due: %v", due)
		}
		*now = now.Add(24 * time.Hour)
	}
	if len(p.CA.Issued) != 15 || len(p.Store.Enrolments()) != 5 {
		t.Errorf("%d issued, %d on record", len(p.CA.Issued), len(p.Store.Enrolments()))
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for kind, want := range map[enroltest.FaultKind]enrol.Class{
		enroltest.Unreachable: enrol.ClassUnreachable, enroltest.WrongKey: enrol.ClassIdentity, enroltest.HookFailing: enrol.ClassHook,
		enroltest.DiskFull: enrol.ClassFull, enroltest.Restarting: enrol.ClassUnreachable, enroltest.Busy: enrol.ClassBusy,
		enroltest.Forgetful: enrol.ClassSuperseded, enroltest.ForeignRoot: enrol.ClassDeviceVerify,
	} {
		p, now := plant(t, 1)
		runner := p.Runner(enrol.DefaultPolicy())
		d := p.Devices[p.Names[0]]
		d.Break(enroltest.Fault{Kind: kind})
		r := runner.Run(context.Background(), p.Names[0], false)
		var f *enrol.Fault
		if !errors.As(r.Err, &f) || f.Class != want {
			t.Errorf("%s: %s: %v", kind, r.Outcome, r.Err)
		}
		d.Break(enroltest.Fault{})
		*now = now.Add(time.Hour)
		if r := runner.Run(context.Background(), p.Names[0], false); r.Outcome != enrol.OutcomeRenewed {
			t.Errorf("%s, mended: %s: %v", kind, r.Outcome, r.Err)
		}
	}
}

func TestCAFaults(t *testing.T) {
	t.Parallel()
	p, _ := plant(t, 3)
	runner := p.Runner(enrol.DefaultPolicy())
	p.CA.Rate = fleet.Rate{N: 2, Per: time.Minute}
	var classes []enrol.Class
	for _, name := range p.Names {
		var f *enrol.Fault
		if r := runner.Run(context.Background(), name, false); errors.As(r.Err, &f) {
			classes = append(classes, f.Class)
			if f.After != time.Minute {
				t.Errorf("after %v", f.After)
			}
		}
	}
	if len(classes) != 1 || classes[0] != enrol.ClassCAUnavail || p.CA.Exceeded != 1 || p.CA.Asked != 3 {
		t.Errorf("classes %v, %d asked, %d exceeded", classes, p.CA.Asked, p.CA.Exceeded)
	}
}

func BenchmarkEnrolment(b *testing.B) {
	p, now := plant(b, 1)
	p.Store.Keep, p.Store.OnEvent = 2, func(enrol.Event) {}
	runner := p.Runner(enrol.DefaultPolicy())
	for b.Loop() {
		*now = now.Add(12 * time.Hour)
		if r := runner.Run(context.Background(), p.Names[0], false); r.Outcome != enrol.OutcomeRenewed {
			b.Fatal(r.Err)
		}
	}
}
