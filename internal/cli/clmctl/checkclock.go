package clmctl

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// How far two clocks may be apart: some CAs refuse or backdate by minutes.
const (
	smallSkew = 30 * time.Second
	largeSkew = 10 * time.Minute
)

const setClock = "set the clock of this machine, and keep it right: timedatectl set-ntp true"

// checkClock holds our clock against the CA's, against the times that were
// written here, and asks the kernel whether somebody keeps it right.
func (c *checkup) checkClock(context.Context) {
	const check = "clock"
	switch skew := c.caSkew.Abs(); {
	case c.caDate.IsZero():
		c.skip(check, "no CA told its time")
	case skew >= largeSkew:
		c.fail(check, setClock+"; or have the CA's set", "%s the CA's: %s here, %s there", ahead(c.caSkew), stamp(c.Now()), stamp(c.caDate))
	case skew >= smallSkew:
		c.warn(check, setClock+"; or have the CA's set", "%s the CA's", ahead(c.caSkew))
	default:
		c.ok(check, "within %v of the CA's", skew.Truncate(time.Second)+time.Second)
	}
	if latest := c.latestWritten(); latest.Sub(c.Now()) > smallSkew {
		c.fail(check, setClock+"; renewal times that were decided in the future count as now", "something was written here at %s, and now it is %s", stamp(latest), stamp(c.Now()))
	}
	c.checkSynchronised(check)
}

func ahead(d time.Duration) string {
	if d < 0 {
		return about(-d) + " behind"
	}
	return about(d) + " ahead of"
}

// latestWritten is the latest time among those of the files here and those in
// the inventory.
func (c *checkup) latestWritten() time.Time {
	latest := c.latest
	entries, err := os.ReadDir(string(c.site.dir))
	if err != nil {
		return latest
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.ModTime().After(latest) {
			latest = info.ModTime()
		}
	}
	return latest
}

// checkSynchronised asks as adjtimex(2) does without changing anything.
func (c *checkup) checkSynchronised(check string) {
	const (
		timeError      = 5    // TIME_ERROR
		unsynchronised = 0x40 // STA_UNSYNC
	)
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	switch {
	case err != nil:
		c.skip(check, "the kernel does not say whether it is synchronised: %v", err)
	case state == timeError || t.Status&unsynchronised != 0:
		c.warn(check, "timedatectl set-ntp true, or run an NTP or PTP client", "nothing keeps the clock of this machine right")
	default:
		c.ok(check, "it is synchronised, to about %v", (time.Duration(t.Esterror) * time.Microsecond).Round(time.Microsecond))
	}
}
