package fleet

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// weekly is a window that comes back on some days of the week.
type weekly struct {
	days     [7]bool // by time.Weekday, of the begin
	from, to int     // minutes of the day's clock; to may lie on the next day
	zone     *time.Location
}

const dayMinutes = 24 * 60

func parseWeekly(spec string, zone *time.Location) (weekly, error) {
	fields := strings.Fields(spec)
	days := "daily"
	if len(fields) > 1 && !strings.Contains(fields[0], ":") {
		days, fields = fields[0], fields[1:]
	}
	if len(fields) == 0 || len(fields) > 2 {
		return weekly{}, errors.New("wanted is [days ]HH:MM-HH:MM[ zone], or BEGIN/END")
	}
	w := weekly{zone: zone}
	var err error
	if w.days, err = parseDays(days); err != nil {
		return weekly{}, err
	}
	if w.from, w.to, err = parseClocks(fields[0]); err != nil {
		return weekly{}, err
	}
	if len(fields) == 2 {
		if w.zone, err = time.LoadLocation(fields[1]); err != nil {
			return weekly{}, fmt.Errorf("%.40q is no time zone like Europe/Madrid or UTC that this machine knows", fields[1])
		}
	}
	return w, nil
}

func parseDays(text string) (days [7]bool, err error) {
	if strings.EqualFold(text, "daily") {
		return [7]bool{true, true, true, true, true, true, true}, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, to := parseDay(first), parseDay(last)
		if from < 0 || to < 0 {
			return days, fmt.Errorf("%.20q is none of Mon, Tue, Wed, Thu, Fri, Sat, Sun, a range like Mon-Fri, or daily", part)
		}
		for d := from; ; d = (d + 1) % 7 {
			days[d] = true
			if d == to {
				break
			}
		}
	}
	return days, nil
}

// parseDay returns the time.Weekday, -1 for none.
func parseDay(text string) int {
	return slices.Index([]string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}, strings.ToLower(text))
}

func parseClocks(text string) (from, to int, err error) {
	first, last, _ := strings.Cut(text, "-")
	from, to = parseClock(first), parseClock(last)
	switch {
	case from < 0 || to < 0 || from == dayMinutes:
		return 0, 0, fmt.Errorf("%.20q is no part of a day like 22:00-04:00", text)
	case from == to:
		return 0, 0, fmt.Errorf("%q is empty; a whole day is 00:00-24:00", text)
	case to < from:
		to += dayMinutes
	}
	return from, to, nil
}

// parseClock returns the minutes of HH:MM, 00:00 to 24:00; -1 for none.
func parseClock(text string) int {
	if len(text) != 5 || text[2] != ':' {
		return -1
	}
	var n [4]int
	for i, at := range []int{0, 1, 3, 4} {
		if text[at] < '0' || text[at] > '9' {
			return -1
		}
		n[i] = int(text[at] - '0')
	}
	hour, minute := 10*n[0]+n[1], 10*n[2]+n[3]
	if minute > 59 || 60*hour+minute > dayMinutes {
		return -1
	}
	return 60*hour + minute
}

// on returns the window that begins a number of days after the one, by the
// window's own calendar, on which t lies; none if the day is not one of its
// days, or if the clocks skip it.
func (w weekly) on(t time.Time, offset int) (Span, bool) {
	year, month, day := t.In(w.zone).Date()
	date := time.Date(year, month, day+offset, 0, 0, 0, 0, time.UTC)
	if !w.days[date.Weekday()] {
		return Span{}, false
	}
	from, _ := instants(date, w.from, w.zone)
	_, to := instants(date, w.to, w.zone)
	return Span{From: from, To: to}, from.Before(to)
}

// instants returns the first and the last instant at which the clocks of a
// zone show a time, in minutes since the midnight that begins a date. They
// differ where clocks are set back; where they are set forward over the time,
// both are the instant of the change.
func instants(date time.Time, minutes int, zone *time.Location) (first, last time.Time) {
	wall := date.Add(time.Duration(minutes) * time.Minute) // as if the zone were UTC
	// A change of the clocks by up to a day (as in Samoa, 2011) that matters is
	// between these two.
	_, before := wall.Add(-25 * time.Hour).In(zone).Zone()
	_, after := wall.Add(25 * time.Hour).In(zone).Zone()
	a, b := wall.Add(-time.Duration(before)*time.Second), wall.Add(-time.Duration(after)*time.Second)
	_, offset := a.In(zone).Zone()
	validA := offset == before
	_, offset = b.In(zone).Zone()
	validB := offset == after
	switch {
	case validA && validB:
		return a, b
	case validA:
		return a, a
	case validB:
		return b, b
	}
	change, _ := a.In(zone).ZoneBounds()
	return change, change
}
