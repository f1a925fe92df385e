package alert

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
)

// group collects the devices with one thing wrong.
type group struct {
	kind     Kind
	class    enrol.Class
	severity Severity
	since    time.Time
	first    Trouble // the one whose words are repeated
	names    []string
	count    int
}

// devices groups those in trouble by what is wrong and the class of failure. A
// device is in one group: the worst.
func (e *evaluation) devices() {
	groups := map[string]*group{}
	var order []string
	for _, d := range e.f.Troubles {
		kind, severity := e.judge(d)
		if kind == "" {
			continue
		}
		class := d.Class
		if kind == KindQuarantined || kind == KindExpired {
			// What matters is that it happened; the causes are in the words.
			class = ""
		}
		key := string(kind) + ":" + string(class)
		g := groups[key]
		if g == nil {
			g = &group{kind: kind, class: class, first: d}
			groups[key] = g
			order = append(order, key)
		}
		g.count++
		g.severity = max(g.severity, severity)
		if !d.Since.IsZero() && (g.since.IsZero() || d.Since.Before(g.since)) {
			g.since = d.Since
		}
		if len(g.names) < MaxDevices {
			g.names = append(g.names, Clean(d.Device, maxText))
		}
	}
	for _, key := range order {
		e.add(e.alert(groups[key]))
	}
	e.beyond(groups)
}

// beyond adds what the census counts and the list of those in trouble has no
// room for.
func (e *evaluation) beyond(groups map[string]*group) {
	if e.f.More == 0 {
		return
	}
	for kind, count := range map[Kind]int{KindQuarantined: e.f.Census.Quarantined, KindExpired: e.f.Census.Expired} {
		if key := string(kind) + ":"; count > 0 && groups[key] == nil {
			e.add(e.alert(&group{kind: kind, severity: Critical, count: count}))
		}
	}
}

// judge says what is wrong with a device; "" if nothing is that somebody has
// to know yet.
func (e *evaluation) judge(d Trouble) (Kind, Severity) {
	left := d.NotAfter.Sub(e.now)
	life := e.f.Lifetime
	if !d.EnrolledAt.IsZero() && d.NotAfter.After(d.EnrolledAt) {
		life = d.NotAfter.Sub(d.EnrolledAt)
	}
	if life <= 0 {
		life = defaultLifetime
	}
	rest := e.f.rest(life)
	switch {
	case d.Quarantined:
		return KindQuarantined, Critical
	case d.NotAfter.IsZero():
		if !d.Since.IsZero() && e.overdue(d.Since, e.t.NeverReached) {
			return KindFailing, Warning
		}
	case left <= 0:
		return KindExpired, Critical
	case left <= rest/5:
		return KindEnding, Critical
	case left <= rest/2:
		return KindEnding, Warning
	case d.Class == "":
	case left <= rest*4/5, !d.Since.IsZero() && e.now.Sub(d.Since) >= left:
		// It should long have been renewed, or has failed for half of the time
		// that it had.
		return KindFailing, Warning
	}
	return "", Info
}

// cause is the class of failure in words, if there was one.
func (g *group) cause() string {
	if g.class == "" {
		return ""
	}
	return fmt.Sprintf(" (%s)", g.class)
}

// name is a device of the group, for an example.
func (g *group) name() string { return cmp.Or(g.first.Device, "NAME") }

// alert puts a group into words.
func (e *evaluation) alert(g *group) Alert {
	if e.f.More > 0 {
		// The list is cut, the census is not.
		switch g.kind {
		case KindQuarantined:
			g.count = max(g.count, e.f.Census.Quarantined)
		case KindExpired:
			g.count = max(g.count, e.f.Census.Expired)
		}
	}
	who := devices(g.names, g.count)
	a := Alert{Kind: g.kind, Severity: g.severity, Subject: string(g.class), Since: g.since, Count: g.count}
	switch g.kind {
	case KindQuarantined:
		a.Summary = fmt.Sprintf("%s %s been quarantined: all attempts failed", who, has(g.count))
		a.Hint = "remove the cause, then: clmctl device release " + g.name() + " --reason TEXT"
	case KindExpired:
		a.Summary = fmt.Sprintf("the certificate of %s has ended", who)
	case KindEnding:
		a.Summary = fmt.Sprintf("the certificate of %s ends soon, the first in %s, and is not renewed%s", who, Span(g.first.NotAfter.Sub(e.now)), g.cause())
	case KindFailing:
		a.Summary = fmt.Sprintf("%s %s failed for long%s", who, has(g.count), g.cause())
	}
	if g.first.LastError != "" {
		a.Summary += ": " + Clean(g.first.LastError, maxText)
	}
	if a.Hint == "" {
		a.Hint = remedy(g.class) + "clmctl device history " + g.name()
	}
	slices.Sort(g.names)
	a.Devices = g.names
	return a
}

// remedy says where to look first.
func remedy(c enrol.Class) string {
	switch c {
	case enrol.ClassUnreachable:
		return "check power, network and address (clmctl discover); "
	case enrol.ClassIdentity:
		return "the device or this CLM presents another identity than is expected (stolen, replaced, or an old bundle); "
	case enrol.ClassCARejected, enrol.ClassCAMismatch, enrol.ClassCAUnavail, enrol.ClassCAPending:
		return "ask the CA's operators, and the CA (clmctl ca check); "
	case enrol.ClassHook, enrol.ClassNotServed:
		return "look at the service on the device that uses the certificate; "
	case enrol.ClassClock:
		return "set this host's clock; "
	}
	return ""
}
