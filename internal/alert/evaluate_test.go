package alert_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/alert"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

const day = 24 * time.Hour

// find returns the alert of a kind, nil if there is none.
func find(now time.Time, f alert.Facts, kind alert.Kind) *alert.Alert {
	for _, a := range alert.Evaluate(now, f, alert.Thresholds{}) {
		if a.Kind == kind {
			return &a
		}
	}
	return nil
}

// TestNoSuccessSinceAlertsWithoutAnyFailure: nothing has failed, since nothing
// was tried; and a success keeps it quiet.
func TestNoSuccessSinceAlertsWithoutAnyFailure(t *testing.T) {
	t.Parallel()
	now := start()
	f := alert.Facts{
		Lifetime: day, DueSince: now.Add(-4 * time.Hour),
		Census: renewal.Census{Total: 9, Operational: 9, Due: 3, LastSuccess: now.Add(-5 * time.Hour), FirstExpiry: now.Add(9 * time.Hour)},
	}
	a := find(now, f, alert.KindNoSuccess)
	if a == nil || a.Count != 3 || a.Severity != alert.Warning || !strings.Contains(a.Summary, "nothing has been enrolled or renewed for 4h, though 3 devices are due") {
		t.Errorf("%+v", a)
	}
	for name, change := range map[string]func(*alert.Facts){
		"a success an hour ago":        func(f *alert.Facts) { f.Census.LastSuccess = now.Add(-time.Hour) },
		"a success by another clock":   func(f *alert.Facts) { f.Census.LastSuccess = now.Add(time.Minute) },
		"certificates of minutes":      func(f *alert.Facts) { f.Lifetime, f.DueSince = 2*time.Minute, now.Add(-time.Minute) },
		"nobody is due":                func(f *alert.Facts) { f.Census.Due = 0 },
		"due for less than the time":   func(f *alert.Facts) { f.DueSince = now.Add(-2 * time.Hour) },
		"the CA's maintenance till 23": func(f *alert.Facts) { f.Maintenance = calendar(t, "daily 20:00-23:00 UTC") },
	} {
		quiet := f
		change(&quiet)
		if a := find(now, quiet, alert.KindNoSuccess); a != nil {
			t.Errorf("%s: %+v", name, a)
		}
	}
	f.Census.FirstExpiry = now.Add(2 * time.Hour)
	if a := find(now, f, alert.KindNoSuccess); a == nil || a.Severity != alert.Critical {
		t.Errorf("with certificates about to end: %+v", a)
	}
}

// TestNoSuccessSinceDespiteAClockThatWasWrong: one device whose last success
// lies years ahead does not make the fleet look well.
func TestNoSuccessSinceDespiteAClockThatWasWrong(t *testing.T) {
	t.Parallel()
	now := start()
	f := alert.Facts{Lifetime: day, DueSince: now.Add(-4 * time.Hour), Census: renewal.Census{Due: 3, LastSuccess: now.AddDate(5, 0, 0)}}
	if find(now, f, alert.KindNoSuccess) == nil {
		t.Error("no alert")
	}
}

// TestNoSuccessSinceCountsOpenTimeOnly: windows each night delay the alert, and
// never put it off for good.
func TestNoSuccessSinceCountsOpenTimeOnly(t *testing.T) {
	t.Parallel()
	f := alert.Facts{Lifetime: 365 * day, DueSince: start(), Census: renewal.Census{Due: 1}, Maintenance: calendar(t, "daily 00:00-12:00 UTC")}
	if a := find(start().Add(5*day), f, alert.KindNoSuccess); a != nil {
		t.Errorf("after 60 open hours: %+v", a)
	}
	if find(start().Add(6*day+time.Minute), f, alert.KindNoSuccess) == nil {
		t.Error("not after 72")
	}
}

func calendar(t testing.TB, window string) fleet.Calendar {
	t.Helper()
	c, err := fleet.ParseCalendar([]string{window}, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestNeverReachedAlertsWithoutAnyFailure: after a day, whoever was at fault,
// and also if the first was commissioned by a clock that was years ahead.
func TestNeverReachedAlertsWithoutAnyFailure(t *testing.T) {
	t.Parallel()
	now := start()
	for name, tt := range map[string]struct {
		since time.Time
		doubt string
		want  string
	}{
		"23 hours":               {now.Add(-23 * time.Hour), "", ""},
		"a day":                  {now.Add(-day), "", "2 devices have been commissioned and never reached; the first waits for 1d"},
		"ahead":                  {now.AddDate(3, 0, 0), "", "2 devices have been commissioned and never reached; the first waits for an unknown time"},
		"a little ahead":         {now.Add(time.Hour), "", ""},
		"ahead of a wrong clock": {now.AddDate(3, 0, 0), "it is 1970", ""},
	} {
		f := alert.Facts{ClockDoubt: tt.doubt, Census: renewal.Census{Total: 2, NeverEnrolled: 2, NeverReached: 2, UnreachedSince: tt.since}}
		got := ""
		if a := find(now, f, alert.KindNeverReached); a != nil {
			got = a.Summary
			if a.Count != 2 {
				t.Errorf("%s: %d devices", name, a.Count)
			}
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// TestLockHeldTooLongAlerts: a renewing run that does not end, and says who.
func TestLockHeldTooLongAlerts(t *testing.T) {
	t.Parallel()
	now := start()
	for _, tt := range []struct {
		held time.Duration
		want bool
	}{{0, false}, {5 * time.Hour, false}, {6 * time.Hour, true}, {-7 * time.Hour, true}} {
		a := find(now, alert.Facts{Lock: alert.Lock{Since: now.Add(-tt.held), Holder: "pid 12, renew\n"}}, alert.KindLock)
		if (a != nil) != tt.want {
			t.Errorf("%v: %+v", tt.held, a)
		}
		if a != nil && !strings.Contains(a.Summary, "(pid 12, renew)") {
			t.Errorf("%q", a.Summary)
		}
	}
	if a := find(now, alert.Facts{Lock: alert.Lock{Holder: "an endless loop"}}, alert.KindLock); a != nil {
		t.Errorf("%+v", a)
	}
}

// TestUnknownRecoversNothing: what could not be looked at has not recovered.
func TestUnknownRecoversNothing(t *testing.T) {
	t.Parallel()
	var tracker alert.Tracker
	at := start()
	step := func(f alert.Facts) alert.Digest {
		at = at.Add(20 * time.Minute)
		d, _ := tracker.Update(at, alert.Evaluate(at, f, alert.Thresholds{}), f.Unsure, alert.Policy{})
		return d
	}
	step(alert.Facts{Disk: alert.Disk{Path: "/d", Free: 1, Size: 1 << 30}})
	for range 5 {
		if d := step(alert.Facts{Unknown: []alert.Kind{alert.KindDisk, alert.KindRunway}, Runway: at.Add(time.Minute)}); !d.Empty() {
			t.Fatalf("%+v", d)
		}
	}
	step(alert.Facts{})
	if d := step(alert.Facts{}); len(d.Recovered) != 1 {
		t.Fatalf("%+v", d)
	}
}

// TestBecomingWorseIsNoRecovery: a device that failed and whose certificate
// then ended has not recovered from failing.
func TestBecomingWorseIsNoRecovery(t *testing.T) {
	t.Parallel()
	var tracker alert.Tracker
	ends := start().Add(9 * time.Hour)
	var recovered []string
	for minute := range 11 * 60 {
		now := start().Add(time.Duration(minute) * time.Minute)
		f := alert.Facts{Lifetime: day}
		if minute < 10*60 {
			f.Troubles = []alert.Trouble{{Device: "d", Class: enrol.ClassBusy, NotAfter: ends}}
		}
		d, _ := tracker.Update(now, alert.Evaluate(now, f, alert.Thresholds{}), f.Unsure, alert.Policy{})
		for _, r := range d.Recovered {
			recovered = append(recovered, r.Key)
		}
	}
	if !slices.Equal(recovered, []string{"expired"}) {
		t.Errorf("recovered: %v", recovered)
	}
}
