package tui

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	day  = 24 * time.Hour
	year = 365 * day
)

// span writes a duration with its two largest units, at most 7 columns; the
// sign is the caller's to say in words.
func span(d time.Duration) string {
	if d < 0 {
		d = -d
	}
	if d < 0 || d >= 100*year {
		return ">99y"
	}
	two := func(big, small time.Duration, b, s string) string {
		if rest := d % big / small; rest > 0 {
			return fmt.Sprintf("%d%s %d%s", d/big, b, rest, s)
		}
		return fmt.Sprintf("%d%s", d/big, b)
	}
	switch {
	case d >= 2*year:
		return two(year, day, "y", "d")
	case d >= 100*day:
		return fmt.Sprintf("%dd", d/day)
	case d >= day:
		return two(day, time.Hour, "d", "h")
	case d >= time.Hour:
		return two(time.Hour, time.Minute, "h", "m")
	case d >= 10*time.Minute:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d >= time.Minute:
		return two(time.Minute, time.Second, "m", "s")
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// coarse is span with its largest unit alone, at most 4 columns.
func coarse(d time.Duration) string {
	big, _, _ := strings.Cut(span(d), " ")
	return big
}

// took writes how long an effect took.
func took(d time.Duration) string {
	switch {
	case d >= time.Minute:
		return span(d)
	case d >= 10*time.Second:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d >= time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}

// count writes a number with its thousands apart.
func count(n int) string {
	s := strconv.Itoa(n)
	start := 0
	if n < 0 {
		start = 1
	}
	for i := len(s) - 3; i > start; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// devices writes how many.
func devices(n int) string {
	if n == 1 {
		return "1 device"
	}
	return count(n) + " devices"
}

// moment writes a time of the near past or future: without the date if it is
// the same day, without the year if it is within half a year.
func moment(at, now time.Time, zone *time.Location) string {
	at, now = at.In(zone), now.In(zone)
	switch {
	case at.Year() == now.Year() && at.YearDay() == now.YearDay():
		return at.Format("15:04:05")
	case at.Sub(now).Abs() < year/2:
		return at.Format("Mon 2 Jan 15:04")
	}
	return at.Format("2 Jan 2006")
}

// absolute writes a time in full.
func absolute(at time.Time, zone *time.Location) string {
	return at.In(zone).Format("2006-01-02 15:04:05")
}
