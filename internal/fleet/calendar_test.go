package fleet_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/edgeclm/edgeclm/internal/fleet"
)

func madrid(t testing.TB) *time.Location {
	t.Helper()
	zone, err := time.LoadLocation("Europe/Madrid")
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

func calendar(t testing.TB, zone *time.Location, specs ...string) fleet.Calendar {
	t.Helper()
	c, err := fleet.ParseCalendar(specs, zone)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func instant(t testing.TB, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestCalendar(t *testing.T) {
	t.Parallel()
	zone := madrid(t)
	for _, tt := range []struct {
		specs    string // separated by ;
		at       string
		end      string // "": not within
		next     string // "": none
		whatever string
	}{
		{specs: "Sun 02:00-06:00", at: "2026-11-29T03:00:00+01:00", end: "2026-11-29T06:00:00+01:00", next: "2026-12-06T02:00:00+01:00"},
		{specs: "Sun 02:00-06:00", at: "2026-11-29T06:00:00+01:00", next: "2026-12-06T02:00:00+01:00"},
		{specs: "Mon-Fri 22:00-04:00", at: "2026-11-28T03:59:00+01:00", end: "2026-11-28T04:00:00+01:00", next: "2026-11-30T22:00:00+01:00"},
		{specs: "Fri-Mon 22:00-04:00", at: "2026-11-25T00:00:00+01:00", next: "2026-11-27T22:00:00+01:00"},
		{specs: "daily 12:00-13:00", at: "2026-11-28T12:30:00+01:00", end: "2026-11-28T13:00:00+01:00", next: "2026-11-29T12:00:00+01:00"},
		{specs: "12:00-13:00 UTC", at: "2026-11-28T12:30:00+01:00", next: "2026-11-28T13:00:00+01:00"},
		{specs: "Sat,Sun 00:00-24:00", at: "2026-11-28T12:00:00+01:00", end: "2026-11-30T00:00:00+01:00", next: "2026-12-05T00:00:00+01:00"},
		{specs: "sat 20:00-24:00;sun 00:00-02:00;sun 01:00-03:00", at: "2026-11-28T21:00:00+01:00", end: "2026-11-29T03:00:00+01:00", next: "2026-12-05T20:00:00+01:00"},
		{specs: "2026-12-24T00:00/2026-12-27T06:00", at: "2026-12-25T00:00:00+01:00", end: "2026-12-27T06:00:00+01:00"},
		{specs: "2026-12-24T00:00Z/2026-12-27T06:00:00Z", at: "2026-12-24T00:30:00+01:00", next: "2026-12-24T01:00:00+01:00"},
		{specs: "2026-12-24T00:00/2026-12-25T22:00;Fri 22:00-23:00", at: "2026-12-24T12:00:00+01:00", end: "2026-12-25T23:00:00+01:00", next: "2027-01-01T22:00:00+01:00"},
		// The clocks are set forward at 02:00 on 28 March 2027, and back at 03:00 on 25 October 2026.
		{specs: "Sun 02:00-06:00", at: "2027-03-28T02:30:00+01:00", end: "2027-03-28T06:00:00+02:00", next: "2027-04-04T02:00:00+02:00"},
		{specs: "Sun 01:00-02:30", at: "2027-03-28T01:30:00+01:00", end: "2027-03-28T03:00:00+02:00", next: "2027-04-04T01:00:00+02:00"},
		{specs: "Sun 02:10-02:50", at: "2027-03-27T00:00:00+01:00", next: "2027-04-04T02:10:00+02:00"},
		{specs: "Sun 02:10-02:50", at: "2026-10-25T02:55:00+02:00", end: "2026-10-25T02:50:00+01:00", next: "2026-11-01T02:10:00+01:00"},
		{specs: "", at: "2026-10-25T02:55:00+02:00"},
	} {
		var specs []string
		if tt.specs != "" {
			specs = strings.Split(tt.specs, ";")
		}
		c := calendar(t, zone, specs...)
		at := instant(t, tt.at)
		end, within := c.Within(at)
		if within != (tt.end != "") || within && !end.Equal(instant(t, tt.end)) {
			t.Errorf("%s at %s: ends at %s, %v; want %q", tt.specs, tt.at, end, within, tt.end)
		}
		next, more := c.Next(at)
		if more != (tt.next != "") || more && !next.Equal(instant(t, tt.next)) {
			t.Errorf("%s at %s: next at %s, %v; want %q", tt.specs, tt.at, next.In(zone), more, tt.next)
		}
	}
}

func TestCalendarRefuses(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"", "Sun", "02:00", "02:00-02:00", "24:00-02:00", "2:00-6:00", "02:00-25:00", "02:60-03:00", "Sunday 02:00-03:00", "Sun,-Mon 02:00-03:00",
		"Sun 02:00-03:00 Mars/Olympus", "Sun 02:00-03:00 UTC x", "Sun 02:00-03:00 ../etc/passwd", "2026-12-24T00:00", "2026-12-24T00:00/2026-12-24T00:00", "2026-12-24T00:00/2028-12-24T00:00",
		"2026-12-24T00:00/tomorrow", "+1:00-03:00", "daily 00:00-24:00", "Mon-Sun 12:00-12:00", "Sun 02:00- 03:00",
	} {
		if _, err := fleet.ParseCalendar([]string{bad}, time.UTC); !errors.Is(err, fleet.ErrCalendar) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, always := range [][]string{
		{"00:00-12:00", "12:00-24:00"},
		{"Mon-Fri 00:00-24:00", "Sat,Sun 00:00-24:00 UTC", "Sun-Mon 12:00-11:00"},
		{"06:00-05:00 UTC", "05:00-06:00 UTC"},
	} {
		if _, err := fleet.ParseCalendar(always, time.UTC); !errors.Is(err, fleet.ErrCalendar) || !strings.Contains(err.Error(), "no time") {
			t.Errorf("%q: %v", always, err)
		}
	}
	calendar(t, time.UTC, "Thu-Tue 00:00-24:00", "Wed 00:00-23:59") // a minute is enough
	if _, err := fleet.ParseCalendar(slices.Repeat([]string{"12:00-13:00"}, fleet.MaxWindows+1), time.UTC); !errors.Is(err, fleet.ErrCalendar) {
		t.Error(err)
	}
}

// TestCalendarIsTheWallClock: what the clocks on the wall show decides, but for
// the hours around their change.
func TestCalendarIsTheWallClock(t *testing.T) {
	t.Parallel()
	zones := []string{"Europe/Madrid", "UTC", "America/St_Johns", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia"}
	rapid.Check(t, func(rt *rapid.T) {
		zone, err := time.LoadLocation(rapid.SampledFrom(zones).Draw(rt, "zone"))
		if err != nil {
			rt.Fatal(err)
		}
		from := rapid.IntRange(0, 1439).Draw(rt, "from")
		to := rapid.IntRange(0, 1440).Filter(func(to int) bool { return to != from && to-from < 1440 }).Draw(rt, "to")
		c, err := fleet.ParseCalendar([]string{fmt.Sprintf("%02d:%02d-%02d:%02d", from/60, from%60, to/60, to%60)}, zone)
		if err != nil {
			rt.Fatal(err)
		}
		at := time.Unix(rapid.Int64Range(1262304000, 1893456000).Draw(rt, "at"), 0).In(zone) // 2010 to 2030
		minutes := 60*at.Hour() + at.Minute()
		want := minutes >= from && minutes < to
		if to < from {
			want = minutes >= from || minutes < to
		}
		_, before := at.Add(-25 * time.Hour).Zone()
		_, after := at.Add(25 * time.Hour).Zone()
		end, got := c.Within(at)
		if want && !got || got && !want && before == after {
			rt.Fatalf("%s in %v: within %v, want %v", at, c.Specs(), got, want)
		}
		if got {
			if _, still := c.Within(end); still || !end.After(at) {
				rt.Fatalf("%s in %v: ends at %s, where it goes on", at, c.Specs(), end)
			}
		}
		next, ok := c.Next(at)
		if _, begun := c.Within(next); !ok || !begun || !next.After(at) {
			rt.Fatalf("%s in %v: next at %s, %v", at, c.Specs(), next, ok)
		}
		if _, early := c.Within(next.Add(-time.Second)); early {
			rt.Fatalf("%s in %v: next at %s, which is not its begin", at, c.Specs(), next)
		}
	})
}

// TestCalendarFree: the free parts of a span and the windows share it out.
func TestCalendarFree(t *testing.T) {
	t.Parallel()
	c := calendar(t, madrid(t), "Mon-Fri 22:00-04:00", "Sun 00:00-24:00", "2026-12-24T00:00/2026-12-27T06:00")
	rapid.Check(t, func(rt *rapid.T) {
		from := time.Unix(rapid.Int64Range(1790000000, 1800000000).Draw(rt, "from"), 0)
		span := fleet.Span{From: from, To: from.Add(time.Duration(rapid.Int64Range(0, 20*86400).Draw(rt, "length")) * time.Second)}
		free := c.Free(span)
		at := span.From.Add(time.Duration(rapid.Float64Range(0, 1).Draw(rt, "at") * float64(span.To.Sub(span.From))))
		if !at.Before(span.To) {
			return
		}
		_, closed := c.Within(at)
		if in := slices.ContainsFunc(free, func(s fleet.Span) bool { return s.Contains(at) }); in == closed {
			rt.Fatalf("%s: within %v, free %v", at, closed, free)
		}
	})
}

func FuzzParseCalendar(f *testing.F) {
	for _, spec := range []string{"Sun 02:00-06:00", "Mon-Fri 22:00-04:00 Europe/Madrid", "Sat,Sun 00:00-24:00", "2026-12-24T00:00/2026-12-27T06:00", "2026-12-24T00:00:00+01:00/2026-12-27T06:00Z", "2011-12-29T00:00/2011-12-31T00:00"} {
		f.Add(spec, int64(1790000000))
	}
	f.Fuzz(func(t *testing.T, spec string, unix int64) {
		c, err := fleet.ParseCalendar([]string{spec}, time.UTC)
		if err != nil {
			if !errors.Is(err, fleet.ErrCalendar) {
				t.Errorf("%q: %v", spec, err)
			}
			return
		}
		at := time.Unix(unix%4e9, 0)
		if end, ok := c.Within(at); ok != end.After(at) {
			t.Errorf("%q at %s: %s, %v", spec, at, end, ok)
		}
		if next, ok := c.Next(at); ok && !next.After(at) {
			t.Errorf("%q at %s: next at %s", spec, at, next)
		}
	})
}
