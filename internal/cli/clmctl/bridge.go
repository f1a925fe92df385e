package clmctl

import (
	"context"
	"time"

	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

// planBridge takes the devices that have to be renewed before the CA goes away
// until a time, so that no certificate ends because of it.
func (a *app) planBridge(ctx context.Context, s *site, inventory inventory, until time.Time) (*plan, error) {
	now := a.Now()
	rows, err := inventory.Rows(ctx, "", 0)
	if err != nil {
		return nil, err
	}
	f, err := s.forecast(ctx, inventory, now, fleet.Span{From: now, To: until})
	if err != nil {
		return nil, err
	}
	bridge, after := f.Bridge(rows)
	lost := make(map[string]bool, len(after.Expiries))
	for _, e := range after.Expiries {
		lost[e.Device] = true
	}
	p := &plan{force: true}
	for _, r := range bridge {
		// A new certificate would end before the outage does, too; so that doing
		// this again and again asks the CA for nothing, it comes when it is due.
		if lost[r.Name] && r.RenewAt.After(now) {
			continue
		}
		p.due = append(p.due, renewal.Job{Device: r.Name, NotAfter: r.NotAfter, Due: r.RenewAt, Failing: r.LastError != "", Force: true})
	}
	p.unnamed = len(rows) - len(p.due)
	a.note("%s to be renewed, so that no certificate ends before %s, when the CA is back", devices(len(p.due)), stamp(until))
	if n := len(after.Expiries); n > 0 {
		a.note("%s cannot be helped: their certificates do not live as long as the outage (the first: %s)", devices(n), after.Expiries[0].Device)
	}
	return p, nil
}
