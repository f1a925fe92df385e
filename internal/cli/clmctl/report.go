package clmctl

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/metrics"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

// report is what came of a run; every device that was checked has one outcome.
type report struct {
	Checked int       `json:"checked"`
	Due     int       `json:"due"`
	Renewed int       `json:"renewed"` // completed enrolments
	Failed  int       `json:"failed"`
	Pending int       `json:"pending"`
	Skipped int       `json:"skipped"`
	Devices []outcome `json:"devices"` // in the order of their names

	// Delivered counts the devices of a run that hands over what waits for them.
	Delivered int `json:"delivered,omitempty"`

	caUnavailable bool // and a device waits for it
	interrupted   bool
	halt          renewal.Halt
	delivers      bool // it is of a run that hands over
	named         bool // its devices were named: those that were skipped are shown
}

// outcome is what came of one device.
type outcome struct {
	Name    string        `json:"name"`
	Outcome enrol.Outcome `json:"outcome"`
	Error   *string       `json:"error"` // also why it is pending or was skipped

	reason string
}

// newReport counts the outcomes of a plan.
func newReport(p *plan, pass renewal.Pass) *report {
	r := &report{
		Checked: p.checked(), Due: len(p.due), Skipped: p.unnamed,
		Devices:       append([]outcome{}, p.skipped...), // never nil
		caUnavailable: pass.NoCA, interrupted: pass.Interrupted && len(pass.Left) > 0, halt: pass.Halt,
	}
	for _, result := range pass.Results {
		r.interrupted = r.interrupted || pass.Interrupted && result.Outcome == enrol.OutcomePending
		r.Devices = append(r.Devices, outcomeOf(result))
	}
	for _, j := range pass.Left {
		r.Devices = append(r.Devices, outcome{Name: j.Device, Outcome: enrol.OutcomePending, reason: whyLeft(pass)})
	}
	slices.SortFunc(r.Devices, func(a, b outcome) int { return cmp.Compare(a.Name, b.Name) })
	for i := range r.Devices {
		o := &r.Devices[i]
		if o.reason != "" {
			text := clikit.OneLine(o.reason)
			o.Error = &text
		}
		switch o.Outcome {
		case enrol.OutcomeRenewed:
			r.Renewed++
		case enrol.OutcomeFailed:
			r.Failed++
		case enrol.OutcomePending:
			r.Pending++
		case enrol.OutcomeSkipped:
			r.Skipped++
		case enrol.OutcomeDelivered:
			r.Delivered++
		}
	}
	return r
}

// summary is the last line for people.
func (r *report) summary() string {
	if r.delivers {
		return fmt.Sprintf("due=%d delivered=%d failed=%d pending=%d skipped=%d", r.Due, r.Delivered, r.Failed, r.Pending, r.Skipped)
	}
	return fmt.Sprintf("checked=%d due=%d renewed=%d failed=%d pending=%d skipped=%d",
		r.Checked, r.Due, r.Renewed, r.Failed, r.Pending, r.Skipped)
}

// render writes the report. People see the devices that were due, and the
// summary.
func (a *app) renderReport(r *report) error {
	t := clikit.Table{Columns: clikit.Columns("name", "outcome", "error")}
	text := a.Output == clikit.FormatTable || a.Output == clikit.FormatWide
	for _, o := range r.Devices {
		if text && o.Outcome == enrol.OutcomeSkipped && a.Output != clikit.FormatWide && !r.named {
			continue
		}
		t.Rows = append(t.Rows, []string{o.Name, string(o.Outcome), o.reason})
	}
	if !text || len(t.Rows) > 0 {
		if err := clikit.Render(a.Out, a.Output, r, t); err != nil {
			return err
		}
	}
	if !text {
		return nil
	}
	_, err := fmt.Fprintln(a.Out, r.summary())
	return err
}

// err is how the run ends: nil, or an error with its exit code. A device that
// failed counts before a CA that is unavailable.
func (r *report) err() error {
	switch {
	case r.interrupted:
		return clikit.WithHint(fmt.Errorf("interrupted, %d of %s left", r.Pending, devices(r.Due)), "run the command again: it goes on where it was")
	case r.halt == renewal.HaltCanary, r.halt == renewal.HaltFailures:
		return clikit.WithHint(clikit.WithCode(fmt.Errorf("stopped early: %d of %s failed, %d left", r.Failed, devices(r.Due), r.Pending), clikit.ExitSomeFailed),
			"clmctl device history NAME tells why; once the cause is gone, run the command again")
	case r.Failed > 0:
		again := "the next clmctl renew tries again"
		if r.delivers {
			again = "the next clmctl device deliver, renew or enrol tries again"
		}
		return clikit.WithHint(clikit.WithCode(fmt.Errorf("%d of %s failed", r.Failed, devices(r.Due)), clikit.ExitSomeFailed),
			"clmctl device history NAME tells more; "+again)
	case r.halt == renewal.HaltMaintenance:
		return clikit.WithHint(clikit.WithCode(fmt.Errorf("a maintenance window is open, and %s left", devices(r.Pending)), clikit.ExitUnavailable),
			"the first clmctl renew after it goes on (renewal.maintenance in the configuration has the windows)")
	case r.caUnavailable:
		return clikit.WithHint(clikit.WithCode(fmt.Errorf("the CA is unavailable, and %s left", devices(r.Pending)), clikit.ExitUnavailable),
			"check the CA; the next clmctl renew tries again")
	}
	return nil
}

// pass is the run as the metrics have it.
func (r *report) pass(began, ended time.Time) metrics.Pass {
	return metrics.Pass{
		At: ended, Took: max(0, ended.Sub(began)),
		Count: map[enrol.Outcome]int{
			enrol.OutcomeRenewed: r.Renewed, enrol.OutcomeFailed: r.Failed, enrol.OutcomePending: r.Pending, enrol.OutcomeSkipped: r.Skipped,
		},
		OK: r.Failed == 0 && !r.caUnavailable && (r.halt == renewal.HaltNone || r.halt == renewal.HaltMaintenance),
	}
}

func devices(n int) string {
	if n == 1 {
		return "1 device"
	}
	return fmt.Sprintf("%d devices", n)
}

// outcomeOf is what a result of the core means for the report.
func outcomeOf(r enrol.Result) outcome {
	o := outcome{Name: r.Device, Outcome: r.Outcome}
	if r.Err != nil {
		o.reason = r.Err.Error()
	}
	return o
}
