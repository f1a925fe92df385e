package clmctl

import (
	"time"

	"github.com/edgeclm/edgeclm/internal/fleet"
)

// calendarAhead is how far doctor looks for maintenance that takes too long.
const calendarAhead = 28 * 24 * time.Hour

// checkMaintenance holds the maintenance windows against the certificates: what
// is due when a window begins has to last until it ends.
func (c *checkup) checkMaintenance(shortest time.Duration) {
	const check = "maintenance"
	calendar := c.site.Limits.Calendar
	if calendar.Empty() {
		return
	}
	now := c.Now()
	longest, begins := longestClosed(calendar, fleet.Span{From: now, To: now.Add(calendarAhead)})
	left := time.Duration(float64(shortest) * (1 - c.site.Policy.Window.To))
	switch {
	case shortest > 0 && longest >= left:
		c.fail(check, "shorten renewal.maintenance, or have the CA issue certificates that live longer",
			"the CA is not asked for %s from %s on, and a certificate that is due then may last %s", about(longest), stamp(begins), about(left))
	case shortest > 0 && longest >= left/2:
		c.warn(check, "shorten renewal.maintenance", "the CA is not asked for %s from %s on; a certificate that is due then may last %s", about(longest), stamp(begins), about(left))
	default:
		c.ok(check, "the CA is not asked for %s at most", about(longest))
	}
}

// longestClosed returns the longest time in a span in which the CA is not asked,
// and when that begins.
func longestClosed(calendar fleet.Calendar, within fleet.Span) (longest time.Duration, begins time.Time) {
	at := within.From
	note := func(until time.Time) {
		if d := until.Sub(at); d > longest {
			longest, begins = d, at
		}
	}
	for _, free := range calendar.Free(within) {
		note(free.From)
		at = free.To
	}
	note(within.To)
	return longest, begins
}
