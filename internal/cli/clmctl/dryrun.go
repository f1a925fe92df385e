package clmctl

import (
	"context"
	"fmt"
	"time"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/renewal"
	"github.com/edgeclm/edgeclm/internal/store"
)

// planner makes the plan of a run.
type planner func(ctx context.Context, inventory inventory, f store.Filter) (*plan, error)

// dryRunView is what a run would do; its fields are a contract.
type dryRunView struct {
	At      string       `json:"at"`
	Checked int          `json:"checked"`
	Due     int          `json:"due"`
	Devices []dryRunItem `json:"devices"` // in the order in which they would be started
	Load    dryRunLoad   `json:"load"`
	Halt    *string      `json:"halt"` // why some would not be started
}

type dryRunItem struct {
	Name     string  `json:"name"`
	Why      string  `json:"why"`
	DueSince *string `json:"due_since"`
	NotAfter *string `json:"not_after"`
	StartsAt *string `json:"starts_at"` // null: it would not be started
}

// dryRunLoad is what the CA would be asked.
type dryRunLoad struct {
	Requests    int           `json:"requests"` // by this run
	BusiestHour *busiestView  `json:"busiest_hour"`
	EndsAt      *string       `json:"ends_at"` // when the last would be done
	Rate        string        `json:"rate"`    // that the CA takes; "0": any
	Planned     []plannedView `json:"planned"` // that become due in the next hours
}

type plannedView struct {
	From     string `json:"from"`
	Renewals int    `json:"renewals"`
}

// plannedHours is how far ahead a dry run shows what becomes due.
const plannedHours = 24

// runDry shows what a run would do, and does nothing.
func (a *app) runDry(ctx context.Context, s *site, o selection, bounds renewal.Bounds, plan planner) error {
	f, err := o.filter()
	if err != nil {
		return err
	}
	return s.dir.withInventory(ctx, func(inventory inventory) error {
		p, err := plan(ctx, inventory, f)
		if err != nil {
			return err
		}
		took, err := usualTime(ctx, inventory)
		if err != nil {
			return err
		}
		now := a.Now()
		counts, err := inventory.Renewals(ctx, now, time.Hour, plannedHours)
		if err != nil {
			return err
		}
		return a.renderDryRun(newDryRunView(p, bounds, now, took, counts))
	})
}

func newDryRunView(p *plan, bounds renewal.Bounds, now time.Time, took time.Duration, planned []int) *dryRunView {
	starts, left, halt := renewal.Rehearse(bounds, now, p.due, took)
	v := &dryRunView{At: stamp(now), Checked: p.checked(), Due: len(p.due), Devices: []dryRunItem{}}
	var times []time.Time
	for _, s := range starts {
		v.Devices = append(v.Devices, dryRunOf(s.Job, now, s.At))
		times = append(times, s.At)
	}
	for _, j := range left {
		v.Devices = append(v.Devices, dryRunOf(j, now, time.Time{}))
	}
	if why := whyLeft(renewal.Pass{Halt: halt}); len(left) > 0 {
		v.Halt = &why
	}
	v.Load = dryRunLoad{Requests: len(starts), Rate: bounds.CA.Rate.String(), Planned: []plannedView{}}
	if len(starts) > 0 {
		v.Load.EndsAt = optionalTime(times[len(times)-1].Add(took))
		n, from := renewal.Outlook{Renewals: times}.Busiest(time.Hour)
		v.Load.BusiestHour = &busiestView{From: stamp(from), Renewals: n}
	}
	for i, n := range planned {
		v.Load.Planned = append(v.Load.Planned, plannedView{From: stamp(now.Add(time.Duration(i) * time.Hour)), Renewals: n})
	}
	return v
}

func dryRunOf(j renewal.Job, now, at time.Time) dryRunItem {
	return dryRunItem{Name: j.Device, Why: whyDue(j, now), DueSince: optionalTime(j.Due), NotAfter: optionalTime(j.NotAfter), StartsAt: optionalTime(at)}
}

// whyDue says why a device would be worked on.
func whyDue(j renewal.Job, now time.Time) string {
	switch {
	case j.NotAfter.IsZero():
		return "it has no certificate"
	case !j.NotAfter.After(now):
		return "its certificate expired"
	case j.Failing:
		return "its last try failed"
	case !j.Due.After(now):
		return "it is due for renewal"
	case j.Force:
		return "as you asked, before it is due"
	}
	return "its enrolment is unfinished"
}

func (a *app) renderDryRun(v *dryRunView) error {
	t := clikit.Table{Columns: clikit.Columns("name", "why", "due_since", "not_after", "starts_at")}
	cell := func(s *string) string {
		if s == nil {
			return "-"
		}
		return *s
	}
	for _, d := range v.Devices {
		t.Rows = append(t.Rows, []string{d.Name, d.Why, cell(d.DueSince), cell(d.NotAfter), cell(d.StartsAt)})
	}
	text := a.Output == clikit.FormatTable || a.Output == clikit.FormatWide
	if !text || len(t.Rows) > 0 {
		if err := clikit.Render(a.Out, a.Output, v, t); err != nil || !text {
			return err
		}
	}
	_, err := fmt.Fprintln(a.Out, v.summary())
	return err
}

// summary says what a run would do, and what follows.
func (v *dryRunView) summary() string {
	ahead := 0
	for _, p := range v.Load.Planned {
		ahead += p.Renewals
	}
	text := fmt.Sprintf("checked=%d due=%d: nothing was done", v.Checked, v.Due)
	if v.Load.Requests > 0 {
		rate := ""
		if v.Load.Rate != "0" {
			rate = ", which takes " + v.Load.Rate + ","
		}
		text += fmt.Sprintf("\nThe CA%s would be asked %s, %d of them within an hour, until %s.",
			rate, count(v.Load.Requests, "time"), v.Load.BusiestHour.Renewals, *v.Load.EndsAt)
	}
	if v.Halt != nil {
		text += fmt.Sprintf("\n%s %s.", devices(v.Due-v.Load.Requests), *v.Halt)
	}
	return text + fmt.Sprintf("\nIn the next %d hours %s become due.", plannedHours, devices(ahead))
}
