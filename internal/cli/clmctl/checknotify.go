package clmctl

import (
	"context"
	"log/slog"
)

// checkNotifications says whether somebody is told of alerts, and whether the
// messages arrive. It sends none.
func (c *checkup) checkNotifications(context.Context) {
	const check = "notifications"
	n, err := c.notifier(c.site, slog.New(slog.DiscardHandler))
	if err != nil {
		c.failError(check, correct("notify"), err)
		return
	}
	counts, err := n.Counts()
	if err != nil {
		c.fail(check, "check the permissions of "+c.site.dir.path(notifyDir), "%v", err)
		return
	}
	if counts.Dead > 0 {
		c.warn(check, "clmctl notify dead lists them, and says why; clmctl notify retry ID sends one again", "messages that were given up: %d", counts.Dead)
	}
	switch {
	case len(n.Channels) == 0:
		c.skip(check, "nobody is configured to be told of alerts (docs/notifications.md)")
	case counts.Waiting > 0:
		c.warn(check, "clmctl notify test says what is wrong; they are sent by the next renew, or by run and watch", "messages that could not be delivered yet: %d", counts.Waiting)
	case counts.Dead == 0:
		c.ok(check, "somebody is told of alerts, and no message waits")
	}
}
