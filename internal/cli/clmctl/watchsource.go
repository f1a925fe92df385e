package clmctl

import (
	"context"
	"slices"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/renewal"
	"github.com/edgeclm/edgeclm/internal/tui"
)

// dashboardSource is the inventory as the dashboard reads it.
type dashboardSource struct {
	inventory
	openedFile
	site *site
	now  func() time.Time
}

func (a *app) newDashboardSource(s *site, inventory inventory) *dashboardSource {
	return &dashboardSource{inventory: inventory, openedFile: s.dir.openedFile(), site: s, now: a.Now}
}

var _ tui.Source = (*dashboardSource)(nil)

// Census implements tui.Source.
func (s *dashboardSource) Census(ctx context.Context) (renewal.Census, error) {
	if err := s.present(); err != nil {
		return renewal.Census{}, err
	}
	return s.inventory.Census(ctx, s.now(), s.site.Policy.LongestWait())
}

// CAs implements tui.Source; the file is read anew each time, since a CA may be
// added while the dashboard is open.
func (s *dashboardSource) CAs(ctx context.Context) ([]enrol.Breaker, error) {
	known, err := s.site.dir.knownCAs(ctx, s)
	if err != nil {
		return nil, err
	}
	var out []enrol.Breaker
	for _, ca := range known {
		out = append(out, ca.breaker)
	}
	return out, nil
}

// detailEvents is how many of a device's events the detail pane has.
const detailEvents = 200

// Detail implements tui.Source.
func (s *dashboardSource) Detail(ctx context.Context, name string) (tui.Detail, error) {
	h, err := s.History(ctx, name, detailEvents)
	if err != nil {
		return tui.Detail{}, err
	}
	d := tui.Detail{Device: h.Device, Events: h.Events, Enrolments: h.Enrolments}
	for _, c := range h.Certificates {
		d.Certificates = append(d.Certificates, tui.Certificate{Certificate: c.Certificate, Active: c.Active})
	}
	for _, x := range h.Deliveries {
		if x.DeliveredAt.IsZero() {
			d.Deliveries = append(d.Deliveries, x)
		}
	}
	slices.Reverse(d.Events)
	slices.Reverse(d.Enrolments)
	slices.Reverse(d.Certificates)
	return d, nil
}
