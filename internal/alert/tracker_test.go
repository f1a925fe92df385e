package alert_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeclm/edgeclm/internal/alert"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

func start() time.Time { return time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC) }

// TestTrackerTellsAndRecoversOnce: whatever comes and goes, each alert that
// stays is told once, each that was told recovers once, and there are never
// more messages in an interval than the policy allows.
func TestTrackerTellsAndRecoversOnce(t *testing.T) {
	t.Parallel()
	p := alert.Policy{MinInterval: 15 * time.Minute, Remind: 24 * time.Hour, Hold: 10 * time.Minute, Burst: 2}
	rapid.Check(t, func(t *rapid.T) {
		var tracker alert.Tracker
		now := start()
		told := map[string]bool{}
		var sent []time.Time
		take := func(alerts []alert.Alert) {
			d, changed := tracker.Update(now, alerts, nil, p)
			if !d.Empty() && !changed {
				t.Fatal("a digest that is not stored")
			}
			after, err := tracker.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			if _, changed := tracker.Update(now, alerts, nil, p); changed {
				t.Fatal("the same again has to be stored")
			}
			again, err := alert.Parse(after)
			if err != nil {
				t.Fatal(err)
			}
			tracker = *again
			if d.Empty() {
				return
			}
			sent = append(sent, now)
			for _, a := range d.New {
				if told[a.Key] {
					t.Fatalf("%s is told as new twice", a.Key)
				}
				told[a.Key] = true
			}
			for _, a := range slices.Concat(d.Worse, d.Ongoing) {
				if !told[a.Key] {
					t.Fatalf("%s was never new", a.Key)
				}
			}
			for _, r := range d.Recovered {
				if !told[r.Key] {
					t.Fatalf("%s recovers and was not told", r.Key)
				}
				delete(told, r.Key)
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(1, 1200).Draw(t, "seconds")) * time.Second)
			var alerts []alert.Alert
			for i := range 5 {
				if rapid.Bool().Draw(t, "there") {
					alerts = append(alerts, alert.Alert{
						Key: fmt.Sprint(i), Kind: alert.KindDisk, Severity: alert.Severity(rapid.IntRange(0, 2).Draw(t, "severity")),
						Count: rapid.IntRange(0, 50).Draw(t, "count"),
					})
				}
			}
			take(alerts)
		}
		for i, at := range sent {
			n := 0
			for _, other := range sent[:i+1] {
				if at.Sub(other) < p.MinInterval {
					n++
				}
			}
			if n > 1+p.Burst {
				t.Fatalf("%d messages in an interval", n)
			}
		}
		// In the end one stays and the others go: it is told, they recover.
		last := []alert.Alert{{Key: "0", Kind: alert.KindDisk}}
		for range 6 {
			now = now.Add(16 * time.Minute)
			take(last)
		}
		if len(told) != 1 || !told["0"] {
			t.Fatalf("told and not recovered: %v", told)
		}
		now = now.Add(25 * time.Hour)
		if d, _ := tracker.Update(now, last, nil, p); len(d.Ongoing) != 1 {
			t.Fatalf("no reminder: %+v", d)
		}
	})
}

// TestClockJumpsSilenceNothing: a message sent in what is now the future does
// not keep the next one back for ever.
func TestClockJumpsSilenceNothing(t *testing.T) {
	t.Parallel()
	var tracker alert.Tracker
	a := alert.Alert{Key: "a", Kind: alert.KindDisk, Severity: alert.Warning}
	tracker.Update(start().AddDate(10, 0, 0), []alert.Alert{a}, nil, alert.Policy{})
	b := alert.Alert{Key: "b", Kind: alert.KindDisk, Severity: alert.Warning}
	if d, _ := tracker.Update(start(), []alert.Alert{a, b}, nil, alert.Policy{}); !d.Empty() {
		t.Fatalf("at once: %+v", d)
	}
	if d, _ := tracker.Update(start().Add(15*time.Minute), []alert.Alert{a, b}, nil, alert.Policy{}); len(d.New) != 1 {
		t.Fatalf("after an interval: %+v", d)
	}
}

// TestEachQuarantineIsTold: a device that joins those in quarantine is told,
// and one that was released and fails again is told again.
func TestEachQuarantineIsTold(t *testing.T) {
	t.Parallel()
	var tracker alert.Tracker
	now := start()
	update := func(names ...string) alert.Digest {
		now = now.Add(20 * time.Minute)
		var f alert.Facts
		for _, n := range names {
			f.Troubles = append(f.Troubles, alert.Trouble{Device: n, Class: enrol.ClassHook, Quarantined: true})
		}
		d, _ := tracker.Update(now, alert.Evaluate(now, f, alert.Thresholds{}), nil, alert.Policy{})
		return d
	}
	if d := update("a"); len(d.New) != 1 || d.New[0].Severity != alert.Critical {
		t.Fatalf("%+v", d)
	}
	if d := update("a", "b"); len(d.Worse) != 1 {
		t.Fatalf("a second device: %+v", d)
	}
	if d := update("a", "b"); !d.Empty() {
		t.Fatalf("told twice: %+v", d)
	}
	if d := update("c", "b"); len(d.Worse) != 1 {
		t.Fatalf("another one: %+v", d)
	}
	update("c", "b")
	if d := update("a", "c", "b"); len(d.Worse) != 1 {
		t.Fatalf("one that came back: %+v", d)
	}
}

// TestManyDevicesAreOneLine: five hundred devices that fail for one cause.
func TestManyDevicesAreOneLine(t *testing.T) {
	t.Parallel()
	now := start()
	f := alert.Facts{Lifetime: 24 * time.Hour}
	for i := range 500 {
		f.Troubles = append(f.Troubles, alert.Trouble{
			Device: fmt.Sprintf("plc-%03d", i), Class: enrol.ClassUnreachable, LastError: "no answer\r\nBcc: everybody",
			Since: now.Add(-8 * time.Hour), EnrolledAt: now.Add(-16 * time.Hour), NotAfter: now.Add(8 * time.Hour),
		})
	}
	alerts := alert.Evaluate(now, f, alert.Thresholds{})
	if len(alerts) != 1 || alerts[0].Count != 500 || len(alerts[0].Devices) != alert.MaxDevices ||
		alerts[0].Summary != "plc-000, plc-001, plc-002 and 497 more have failed for long (unreachable): no answer Bcc: everybody" {
		t.Fatalf("%+v", alerts)
	}
}

// TestEvaluate: each kind, and what is no alert yet.
func TestEvaluate(t *testing.T) {
	t.Parallel()
	now := start()
	day := 24 * time.Hour
	due := renewal.Census{Due: 3, LastSuccess: now.Add(-40 * day), FirstExpiry: now.Add(20 * time.Hour), FirstExpiring: "x"}
	for name, tt := range map[string]struct {
		f    alert.Facts
		want string
	}{
		"nothing":                 {alert.Facts{}, ""},
		"due since just now":      {alert.Facts{Census: due, DueSince: now.Add(-time.Hour), Lifetime: day}, ""},
		"no success":              {alert.Facts{Census: due, DueSince: now.Add(-4 * time.Hour), Lifetime: day}, "no-success warning"},
		"never reached, fresh":    {alert.Facts{Census: renewal.Census{NeverReached: 1, UnreachedSince: now.Add(-time.Hour)}}, ""},
		"never reached":           {alert.Facts{Census: renewal.Census{NeverReached: 1, UnreachedSince: now.Add(-day)}}, "never-reached warning"},
		"short runway":            {alert.Facts{Runway: now.Add(5 * time.Hour), RunwayDevice: "x", Lifetime: day}, "runway warning"},
		"very short runway":       {alert.Facts{Runway: now.Add(time.Hour), RunwayDevice: "x", Lifetime: day}, "runway critical"},
		"runway":                  {alert.Facts{Runway: now.Add(7 * time.Hour), RunwayDevice: "x", Lifetime: day}, ""},
		"CA restarts":             {alert.Facts{CAs: []enrol.Breaker{{CA: "ca", State: enrol.BreakerOpen, Class: enrol.ClassCAUnavail, Opened: 1, OpenedAt: now.Add(-time.Minute)}}}, ""},
		"CA down":                 {alert.Facts{CAs: []enrol.Breaker{{CA: "ca", State: enrol.BreakerHalfOpen, Class: enrol.ClassCAUnavail, Opened: 2, OpenedAt: now}}}, "ca-down:ca warning"},
		"CA certificate":          {alert.Facts{Certificates: []alert.Certificate{{Role: "RA", Name: "r", NotAfter: now.Add(29 * day)}}}, "ca-expiry:RA r warning"},
		"CA of minutes":           {alert.Facts{Certificates: []alert.Certificate{{Role: "RA", Name: "r", NotBefore: now, NotAfter: now.Add(time.Hour)}}}, ""},
		"CA certificate at end":   {alert.Facts{Certificates: []alert.Certificate{{Role: "CA", Name: "c", NotAfter: now.Add(-day)}}}, "ca-expiry:CA c critical"},
		"clock":                   {alert.Facts{ClockDoubt: "behind the CA"}, "clock warning"},
		"disk":                    {alert.Facts{Disk: alert.Disk{Path: "/d", Free: 1 << 20, Size: 1 << 30}}, "disk:/d critical"},
		"lock":                    {alert.Facts{Lock: alert.Lock{Since: now.Add(-7 * time.Hour)}}, "lock warning"},
		"expired":                 {alert.Facts{Troubles: []alert.Trouble{{Device: "x", NotAfter: now}}}, "expired critical"},
		"ends soon":               {alert.Facts{Lifetime: day, Troubles: []alert.Trouble{{Device: "x", Class: "busy", NotAfter: now.Add(6 * time.Hour)}}}, "ending:busy warning"},
		"ends very soon":          {alert.Facts{Lifetime: day, Troubles: []alert.Trouble{{Device: "x", Class: "busy", NotAfter: now.Add(2 * time.Hour)}}}, "ending:busy critical"},
		"fails for a while":       {alert.Facts{Lifetime: day, Troubles: []alert.Trouble{{Device: "x", Class: "busy", Since: now.Add(-time.Hour), NotAfter: now.Add(11 * time.Hour)}}}, ""},
		"fails without any":       {alert.Facts{Troubles: []alert.Trouble{{Device: "x", Class: "busy", Since: now.Add(-day)}}}, "failing:busy warning"},
		"never enrolled, a while": {alert.Facts{Troubles: []alert.Trouble{{Device: "x", Class: "busy", Since: now.Add(-time.Hour)}}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := ""
			for _, a := range alert.Evaluate(now, tt.f, alert.Thresholds{}) {
				got += a.Key + " " + a.Severity.String()
				if a.Summary == "" || a.Hint == "" {
					t.Errorf("without words: %+v", a)
				}
			}
			if got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"version":1,"open":{"a":{"alert":{"key":"a"},"told":"2030-01-01T00:00:00Z","members":{"x":null}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		tracker, err := alert.Parse(data)
		if err != nil {
			return
		}
		tracker.Update(start(), []alert.Alert{{Key: "a", Kind: alert.KindExpired, Devices: []string{"x"}}}, nil, alert.Policy{})
		if _, err := tracker.Bytes(); err != nil {
			// A year that JSON cannot say was read from elsewhere than here.
			t.Fatal(err)
		}
	})
}

func FuzzClean(f *testing.F) {
	f.Add("a\r\nBcc: x", 20)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit = max(10, min(limit, 1000))
		out := alert.Clean(s, limit)
		if len(out) > limit {
			t.Fatalf("%d bytes", len(out))
		}
		for _, r := range out {
			if r < ' ' || r == 0x7f || r == 0x2028 || r == 0x202e {
				t.Fatalf("%q", out)
			}
		}
	})
}
