package enroltest

import (
	"context"
	"fmt"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
)

// Fault is what is wrong with a device. The zero Fault is nothing.
type Fault struct {
	Kind FaultKind
	Slow time.Duration // each exchange takes so much longer, by the time package's clock
}

// FaultKind is a way for a device to fail.
type FaultKind string

// The kinds.
const (
	Healthy     FaultKind = ""
	Unreachable FaultKind = "unreachable"
	WrongKey    FaultKind = "wrong key"  // it cannot prove its identity
	DiskFull    FaultKind = "disk full"  // it cannot stage a key or certificate
	HookFailing FaultKind = "hook fails" // it rolls every activation back
	Restarting  FaultKind = "restarting" // the channel breaks in front of every verification
	Busy        FaultKind = "busy"       // another CLM has its pending slot
	Forgetful   FaultKind = "forgetful"  // it knows no enrolment any more
	ForeignRoot FaultKind = "foreign CA" // it does not accept the CA's certificates
)

// Break changes what is wrong with the device, at any time; Fault{} mends it.
func (d *Device) Break(f Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = f
}

// strike is how the device's faults show at a call.
func (d *Device) strike(ctx context.Context, call string) error {
	if err := d.Refuse[call]; err != nil {
		return err
	}
	d.mu.Lock()
	f := d.fault
	d.mu.Unlock()
	if f.Slow > 0 {
		if err := sleep(ctx, f.Slow); err != nil {
			return fmt.Errorf("%w: %w", enrol.ErrUnreachable, err)
		}
	}
	refused := func(problem enrol.Problem, detail string) error {
		return &enrol.DeviceError{Problem: problem, Detail: detail}
	}
	switch {
	case f.Kind == Unreachable:
		return fmt.Errorf("%w: no route to host", enrol.ErrUnreachable)
	case f.Kind == WrongKey && call == CallDial:
		return fmt.Errorf("%w: its signature does not hold", enrol.ErrIdentity)
	case f.Kind == DiskFull && (call == CallCSR || call == CallVerify):
		return refused(enrol.ProblemFull, "no space left on device")
	case f.Kind == HookFailing && call == CallActivate:
		return refused(enrol.ProblemRolledBack, "the hook exited with 1")
	case f.Kind == Restarting && call == CallVerify:
		return fmt.Errorf("%w: connection reset", enrol.ErrUnreachable)
	case f.Kind == Busy && call == CallCSR:
		return refused(enrol.ProblemConflict, "clm-2 has the pending slot")
	case f.Kind == Forgetful && call == CallVerify:
		return refused(enrol.ProblemUnknown, "no such enrolment")
	case f.Kind == ForeignRoot && call == CallVerify:
		return refused(enrol.ProblemUnverified, "it does not chain to a trust anchor")
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
