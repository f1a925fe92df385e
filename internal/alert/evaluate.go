package alert

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
)

// maxAlerts bounds what one evaluation returns; the groups are few, only the
// CAs and their certificates are many.
const maxAlerts = 200

// caGrace is how long a CA may be down before somebody is told, at most: a
// restart is no news, and a fleet outlasts an outage of hours.
const caGrace = 30 * time.Minute

// longestLook is how far back maintenance windows are subtracted.
const longestLook = 60 * 24 * time.Hour

// Evaluate says what is wrong at now, the worst in front.
func Evaluate(now time.Time, f Facts, t Thresholds) []Alert {
	t = t.withDefaults(f)
	e := evaluation{now: now, f: f, t: t}
	e.devices()
	e.success()
	e.neverReached()
	e.runway()
	e.authorities()
	e.certificates()
	e.surroundings()
	for i := range e.alerts {
		a := &e.alerts[i]
		a.Subject, a.Summary, a.Hint = Clean(a.Subject, maxText), Clean(a.Summary, 3*maxText), Clean(a.Hint, 2*maxText)
	}
	// Half of the facts may make an alert that all of them do not.
	e.alerts = slices.DeleteFunc(e.alerts, func(a Alert) bool { return slices.Contains(f.Unknown, a.Kind) })
	slices.SortFunc(e.alerts, func(a, b Alert) int {
		return cmp.Or(-cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.Key, b.Key))
	})
	return e.alerts[:min(len(e.alerts), maxAlerts)]
}

type evaluation struct {
	now    time.Time
	f      Facts
	t      Thresholds
	alerts []Alert
}

func (e *evaluation) add(a Alert) {
	a.Key = string(a.Kind)
	if a.Subject != "fleet" && a.Subject != "" {
		a.Key += ":" + Clean(a.Subject, maxText)
	}
	e.alerts = append(e.alerts, a)
}

// overdue reports whether something has gone on for this long. A time that lies
// as far ahead was written by a clock that was wrong: it tells nothing, and must
// not silence the alert until it comes.
func (e *evaluation) overdue(since time.Time, limit time.Duration) bool {
	age := e.now.Sub(since)
	return age >= limit || -age > limit && e.f.ClockDoubt == ""
}

// worked is how much of the time since then CAs might be asked.
func (e *evaluation) worked(since time.Time) time.Duration {
	age := e.now.Sub(since)
	if age <= 0 || age > longestLook || e.f.Maintenance.Empty() {
		return age
	}
	age = 0
	for _, free := range e.f.Maintenance.Free(fleet.Span{From: since, To: e.now}) {
		age += free.To.Sub(free.From)
	}
	return age
}

// span is how long something goes on, in words.
func (e *evaluation) span(since time.Time) string {
	if since.After(e.now) {
		return "an unknown time"
	}
	return Span(e.now.Sub(since))
}

func (e *evaluation) success() {
	c := e.f.Census
	since := e.f.DueSince
	if since.IsZero() {
		for _, d := range e.f.Troubles {
			if !d.Since.IsZero() && !d.Quarantined && (since.IsZero() || d.Since.Before(since)) {
				since = d.Since
			}
		}
	}
	// A success that lies far ahead was taken down by a clock that was wrong.
	if success := c.LastSuccess; success.After(since) && success.Sub(e.now) < e.t.NoSuccessWithin {
		since = success
	}
	if c.Due == 0 || since.IsZero() || e.worked(since) < e.t.NoSuccessWithin {
		return
	}
	a := Alert{
		Kind: KindNoSuccess, Severity: Warning, Subject: "fleet", Since: since, Count: c.Due,
		Summary: fmt.Sprintf("nothing has been enrolled or renewed for %s, though %s %s due", Span(e.now.Sub(since)), plural(c.Due, "device"), are(c.Due)),
		Hint:    "see what stands in the way: clmctl doctor; then clmctl renew",
	}
	if !c.FirstExpiry.IsZero() && c.FirstExpiry.Sub(e.now) < e.t.NoSuccessWithin {
		a.Severity = Critical
	}
	e.add(a)
}

func are(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

func (e *evaluation) neverReached() {
	c := e.f.Census
	if c.NeverReached == 0 || c.UnreachedSince.IsZero() || !e.overdue(c.UnreachedSince, e.t.NeverReached) {
		return
	}
	if age := e.worked(c.UnreachedSince); age >= 0 && age < e.t.NeverReached {
		return
	}
	e.add(Alert{
		Kind: KindNeverReached, Severity: Warning, Subject: "fleet", Since: c.UnreachedSince, Count: c.NeverReached,
		Summary: fmt.Sprintf("%s %s been commissioned and never reached; the first waits for %s", plural(c.NeverReached, "device"), has(c.NeverReached), e.span(c.UnreachedSince)),
		Hint:    "check power, network and addresses: clmctl discover, clmctl device list",
	})
}

// runway is silent about a device of its own: that one is in trouble, not the
// fleet, and has an alert that says so.
func (e *evaluation) runway() {
	at, device := e.f.runway()
	if at.IsZero() || at.Sub(e.now) >= e.t.Runway {
		return
	}
	for _, d := range e.f.Troubles {
		if d.Device == device && device != "" {
			return
		}
	}
	left := at.Sub(e.now)
	a := Alert{
		Kind: KindRunway, Severity: Warning, Subject: "fleet",
		Summary: fmt.Sprintf("without the CA the first certificate, of %s, would end in %s; the fleet should last for %s at least", device, Span(left), Span(e.t.Runway)),
		Hint:    "see who would be next: clmctl runway; renew ahead of a planned outage: clmctl renew --bridge TIME",
	}
	if left < e.t.Runway/3 {
		a.Severity = Critical
	}
	e.add(a)
}

func (e *evaluation) authorities() {
	for _, b := range e.f.CAs {
		if b.State == "" || b.State == enrol.BreakerClosed {
			continue
		}
		grace := min(caGrace, e.t.NoSuccessWithin/2)
		down := e.now.Sub(b.OpenedAt)
		if b.Class == enrol.ClassCAUnavail && b.Opened < 2 && down < grace {
			continue
		}
		since := b.OpenedAt
		summary := fmt.Sprintf("the CA %s is not asked, since it does not work", b.CA)
		if b.LastError != "" {
			summary += ": " + Clean(b.LastError, maxText)
		}
		e.add(Alert{
			Kind: KindCADown, Severity: Warning, Subject: b.CA, Since: since, Summary: summary,
			Hint: "ask it: clmctl ca check; how long the fleet lasts: clmctl runway",
		})
	}
}

func (e *evaluation) certificates() {
	for _, c := range e.f.Certificates {
		if c.NotAfter.IsZero() {
			continue
		}
		within := e.t.CAExpiry
		if life := c.NotAfter.Sub(c.NotBefore); !c.NotBefore.IsZero() && life > 0 {
			within = min(within, life/3)
		}
		left := c.NotAfter.Sub(e.now)
		if left >= within {
			continue
		}
		a := Alert{
			Kind: KindCAExpiry, Severity: Warning, Subject: c.Role + " " + c.Name,
			Summary: fmt.Sprintf("the certificate of the %s %s ends in %s", c.Role, c.Name, Span(left)),
			Hint:    "plan the change: clmctl ca show; for a new CA: clmctl ca rollover",
		}
		if left < within/4 {
			a.Severity = Critical
		}
		if left <= 0 {
			a.Summary = fmt.Sprintf("the certificate of the %s %s has ended %s ago", c.Role, c.Name, Span(-left))
		}
		e.add(a)
	}
}

func (e *evaluation) surroundings() {
	if e.f.ClockDoubt != "" {
		e.add(Alert{
			Kind: KindClock, Severity: Warning, Subject: "fleet", Summary: "the clock of this host is in doubt: " + Clean(e.f.ClockDoubt, maxText),
			Hint: "set it, and see that it is kept by NTP: timedatectl; then clmctl doctor",
		})
	}
	if d := e.f.Disk; d.Size > 0 && d.Free < e.t.DiskFree {
		a := Alert{
			Kind: KindDisk, Severity: Warning, Subject: d.Path, Summary: fmt.Sprintf("%d MiB are left on the disk of %s", d.Free>>20, d.Path),
			Hint: "make room: without it no renewal can be recorded",
		}
		if d.Free < e.t.DiskFree/4 {
			a.Severity = Critical
		}
		e.add(a)
	}
	if l := e.f.Lock; !l.Since.IsZero() && e.overdue(l.Since, e.t.LockHeld) {
		e.add(Alert{
			Kind: KindLock, Severity: Warning, Subject: "fleet", Since: l.Since,
			Summary: fmt.Sprintf("a renewing run (%s) has held the lock for %s", Clean(l.Holder, maxText), e.span(l.Since)),
			Hint:    "if it hangs, end it; the lock is freed by its end",
		})
	}
}
