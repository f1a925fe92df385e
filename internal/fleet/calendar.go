package fleet

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ErrCalendar is wrapped by every refusal of a maintenance window.
var ErrCalendar = errors.New("not a maintenance window")

// Bounds of a calendar.
const (
	MaxWindows = 64
	maxOnce    = 366 * 24 * time.Hour // of a window that is no weekly one
	maxChain   = 8 * 24 * time.Hour   // of weekly windows that touch each other
	maxSearch  = 3 * 366 * 24 * time.Hour
)

// Calendar is a set of maintenance windows, in which the CA is not asked. The
// zero Calendar has none.
type Calendar struct {
	specs  []string
	weekly []weekly
	once   []Span
}

// Span is a time from one instant to another, the latter excluded.
type Span struct {
	From, To time.Time
}

// Contains reports whether t lies in the span.
func (s Span) Contains(t time.Time) bool { return !t.Before(s.From) && t.Before(s.To) }

// ParseCalendar parses maintenance windows, at most MaxWindows, each in one of
// two forms:
//
//   - weekly: "[days ]HH:MM-HH:MM[ zone]" as "Sun 02:00-06:00", "Mon-Fri
//     22:00-04:00" (which ends on the next day), "daily 12:00-13:00", "Sat,Sun
//     00:00-24:00 Europe/Madrid"; every day if none is named. The zone is of the
//     IANA database.
//   - once: "2026-12-24T00:00/2026-12-27T06:00", RFC 3339 with or without
//     seconds and offset, at most 366 days.
//
// Where no zone is given, times are in zone. A weekly window that begins or
// ends in the hour that a change of the clocks repeats takes in all of it.
// Windows without a gap in which the CA may be asked are refused. Errors wrap
// ErrCalendar.
func ParseCalendar(specs []string, zone *time.Location) (Calendar, error) {
	if len(specs) > MaxWindows {
		return Calendar{}, fmt.Errorf("%w: %d windows, at most %d are allowed", ErrCalendar, len(specs), MaxWindows)
	}
	var c Calendar
	for _, spec := range specs {
		if err := c.add(spec, zone); err != nil {
			return Calendar{}, fmt.Errorf("%w: %.80q: %w", ErrCalendar, spec, err)
		}
		c.specs = append(c.specs, spec)
	}
	slices.SortFunc(c.once, func(a, b Span) int { return a.From.Compare(b.From) })
	if c.neverOpens() {
		return Calendar{}, fmt.Errorf("%w: together they leave no time in which the CA may be asked", ErrCalendar)
	}
	return c, nil
}

func (c *Calendar) add(spec string, zone *time.Location) error {
	if len(spec) > 10 && spec[4] == '-' && spec[10] == 'T' {
		span, err := parseOnce(spec, zone)
		c.once = append(c.once, span)
		return err
	}
	w, err := parseWeekly(spec, zone)
	c.weekly = append(c.weekly, w)
	return err
}

func parseOnce(spec string, zone *time.Location) (Span, error) {
	from, to, ok := strings.Cut(spec, "/")
	if !ok {
		return Span{}, errors.New("it has no end: BEGIN/END")
	}
	var (
		s   Span
		err error
	)
	if s.From, err = parseInstant(from, zone); err != nil {
		return Span{}, err
	}
	if s.To, err = parseInstant(to, zone); err != nil {
		return Span{}, err
	}
	if length := s.To.Sub(s.From); length <= 0 || length > maxOnce {
		return Span{}, fmt.Errorf("it lasts %v, 1s to %v are allowed", length, maxOnce)
	}
	return s, nil
}

func parseInstant(text string, zone *time.Location) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z07:00"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if t, err := time.ParseInLocation(layout, text, zone); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%.40q is no time like 2026-12-24T18:00 or 2026-12-24T18:00:00+01:00", text)
}

// Empty reports whether there is no window at all.
func (c Calendar) Empty() bool { return len(c.weekly) == 0 && len(c.once) == 0 }

// Specs returns the windows as they were given.
func (c Calendar) Specs() []string { return slices.Clone(c.specs) }

// Within reports whether t lies in a maintenance window, and when that ends:
// windows that overlap or touch are one.
func (c Calendar) Within(t time.Time) (end time.Time, ok bool) {
	end = t
	for end.Sub(t) < maxSearch {
		further := c.extend(end)
		if !further.After(end) {
			break
		}
		end, ok = further, true
	}
	return end.UTC(), ok
}

// extend returns the latest end of the windows that contain t, or t.
func (c Calendar) extend(t time.Time) time.Time {
	end := t
	for _, s := range c.once {
		if s.Contains(t) && s.To.After(end) {
			end = s.To
		}
	}
	for _, w := range c.weekly {
		// A window lasts less than two days, so it began yesterday at most; the
		// other days are for zones that skipped one.
		for offset := -2; offset <= 1; offset++ {
			if s, ok := w.on(t, offset); ok && s.Contains(t) && s.To.After(end) {
				end = s.To
			}
		}
	}
	return end
}

// Next returns the begin of the first maintenance window after t; if t lies in
// one, of the first after that one. It is false if there is none any more.
func (c Calendar) Next(t time.Time) (begin time.Time, ok bool) {
	t, _ = c.Within(t)
	note := func(at time.Time) {
		if at.After(t) && (!ok || at.Before(begin)) {
			begin, ok = at, true
		}
	}
	for _, s := range c.once {
		note(s.From)
	}
	for _, w := range c.weekly {
		// Two weeks: one occurrence may fall into an hour that does not exist.
		for offset := -1; offset <= 15; offset++ {
			if s, has := w.on(t, offset); has && s.From.After(t) {
				note(s.From)
				break
			}
		}
	}
	return begin.UTC(), ok
}

// Free returns the parts of a span in which the CA may be asked, in order.
func (c Calendar) Free(s Span) []Span {
	var out []Span
	for at := s.From; at.Before(s.To); {
		if end, closed := c.Within(at); closed {
			at = end
			continue
		}
		to := s.To
		if begin, ok := c.Next(at); ok && begin.Before(to) {
			to = begin
		}
		out = append(out, Span{From: at, To: to})
		at = to
	}
	return out
}

// neverOpens looks at the weekly windows in two years of which any will do:
// zones whose clocks change on different days may close a gap in a season.
func (c Calendar) neverOpens() bool {
	weekly := Calendar{weekly: c.weekly}
	for month := range 24 {
		at := time.Date(2026, time.January+time.Month(month), 10, 0, 0, 0, 0, time.UTC)
		if end, ok := weekly.Within(at); ok && end.Sub(at) > maxChain {
			return true
		}
	}
	return false
}
