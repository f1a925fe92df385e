package clmctl

import (
	"context"
	"fmt"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/renewal"
	"github.com/edgeclm/edgeclm/internal/store"
)

// plan is what a run is going to do.
type plan struct {
	due     []renewal.Job // to be tried
	skipped []outcome     // others, and why
	unnamed int           // others, of which there is nothing to say
	force   bool          // of those taken from now on: their retry times do not count
}

// take puts a device among those to be tried.
func (p *plan) take(d fleet.Device) {
	j := renewal.Job{Device: d.Name, Due: d.RenewAt, Failing: d.LastError != "", Force: p.force}
	if d.Certificate != nil {
		j.NotAfter = d.Certificate.NotAfter
	}
	p.due = append(p.due, j)
}

// checked counts the devices that a plan is about.
func (p *plan) checked() int { return len(p.due) + len(p.skipped) + p.unnamed }

// jobs are devices of which nothing but the name counts.
func jobs(names ...string) []renewal.Job {
	out := make([]renewal.Job, len(names))
	for i, name := range names {
		out[i].Device = name
	}
	return out
}

func (p *plan) skip(device, format string, args ...any) {
	p.skipped = append(p.skipped, outcome{Name: device, Outcome: enrol.OutcomeSkipped, reason: fmt.Sprintf(format, args...)})
}

// planEnrol takes the devices that own no valid certificate.
func planEnrol(ctx context.Context, devices inventory, f store.Filter, now time.Time, policy enrol.Policy) (*plan, error) {
	p := &plan{}
	for d, err := range devices.ListDevices(ctx, f) {
		switch {
		case err != nil:
			return nil, explainUnknown(err)
		case d.State(now) == fleet.Operational:
			p.skip(d.Name, "its certificate is valid until %s", stamp(d.Certificate.NotAfter))
		case held(d) != "" || policy.Waiting(d, now):
			p.skip(d.Name, "%s", notDue(d, now, policy))
		default:
			p.take(d)
		}
	}
	return p, nil
}

// planForced takes every device that is neither paused nor quarantined.
func planForced(ctx context.Context, devices inventory, f store.Filter) (*plan, error) {
	p := &plan{force: true}
	for d, err := range devices.ListDevices(ctx, f) {
		switch {
		case err != nil:
			return nil, explainUnknown(err)
		case held(d) != "":
			p.skip(d.Name, "%s", held(d))
		default:
			p.take(d)
		}
	}
	return p, nil
}

// planRenew takes the devices whose certificate is due or has expired, and
// those with an unfinished enrolment. Of a whole inventory it reads no others.
func planRenew(ctx context.Context, devices inventory, f store.Filter, now time.Time, policy enrol.Policy) (*plan, error) {
	jobs, err := devices.DueJobs(ctx, f, now, policy.LongestWait())
	if err != nil {
		return nil, explainUnknown(err)
	}
	p := &plan{due: jobs}
	if len(f.Names)+len(f.Labels) == 0 {
		all, err := devices.CountDevices(ctx, f)
		if err != nil {
			return nil, err
		}
		// Between the two somebody may have commissioned others.
		p.unnamed = max(0, all-len(jobs))
		return p, nil
	}
	due := make(map[string]bool, len(jobs))
	for _, j := range jobs {
		due[j.Device] = true
	}
	for d, err := range devices.ListDevices(ctx, f) {
		if err != nil {
			return nil, explainUnknown(err)
		}
		if !due[d.Name] {
			p.skip(d.Name, "%s", notDue(d, now, policy))
		}
	}
	return p, nil
}

// held says why nobody may work on a device, "" if somebody may.
func held(d fleet.Device) string {
	switch {
	case d.Paused:
		return "it is paused"
	case d.Quarantined:
		return "it is quarantined: " + d.LastError
	}
	return ""
}

// notDue says why a device is not renewed now.
func notDue(d fleet.Device, now time.Time, policy enrol.Policy) string {
	if why := held(d); why != "" {
		return why
	}
	if policy.Waiting(d, now) {
		return "its next try is at " + stamp(d.NextAttempt)
	}
	switch {
	case d.Certificate != nil:
		return "it is not due until " + stamp(d.RenewAt)
	case !d.Tried():
		return "it was never enrolled (clmctl enrol " + d.Name + ")"
	}
	return "it is not due"
}

// stamp is a time as people and scripts read it.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
