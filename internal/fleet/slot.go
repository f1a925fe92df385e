package fleet

import (
	"fmt"
	"math"
	"time"
)

// Renewals are planned for no more than reserveNum/reserveDen of what the CA
// takes: the rest is for retries, new devices and what an outage left behind.
const (
	reserveNum, reserveDen = 4, 5
	slotsPerWindow         = 512 // at most about twice as many; fewer if a slot would hold nobody
)

// Planned counts the renewals of the fleet that are planned from one time to
// another, the latter excluded.
type Planned func(from, to time.Time) (int, error)

// Place decides, once per certificate, when it is due, as RenewAt does, with
// regard to what the CA takes. A time in one of its maintenance windows is
// exchanged for another one of the window, spread in the same way. If as many
// renewals as its rate takes, a reserve left free, are planned at about that
// time already, it is the next time with room, from there to the end of the
// window and then from its begin; if there is none it stays, and whoever asks
// the CA has to wait then. With planned nil the rate does not count. If
// planned fails, the time without regard to the others comes with the error.
func (w Window) Place(device string, c Certificate, received time.Time, limits Limits, planned Planned) (time.Time, error) {
	at := w.RenewAt(device, c, received)
	lifetime := c.Lifetime(received)
	if lifetime <= 0 {
		return at, nil
	}
	window := Span{From: received.Add(fraction(lifetime, w.From)), To: received.Add(fraction(lifetime, w.To))}
	_, second := spread(device, c)
	if _, closed := limits.Calendar.Within(at); closed {
		if other, ok := pick(limits.Calendar.Free(window), second); ok {
			at = other
		}
	}
	grid := newGrid(limits.Rate, window.To.Sub(window.From))
	if planned == nil || grid.length <= 0 {
		return at, nil
	}
	for turn, slot := range grid.from(at, window) {
		part := Span{From: later(slot.From, window.From), To: earlier(slot.To, window.To)}
		room, err := grid.room(slot, part, limits.Calendar, planned)
		switch {
		case err != nil:
			return at, fmt.Errorf("count the planned renewals: %w", err)
		case !room:
			continue
		case turn == 0:
			return at, nil
		}
		if other, ok := pick(limits.Calendar.Free(part), second); ok {
			return other, nil
		}
	}
	return at, nil
}

func fraction(d time.Duration, part float64) time.Duration { return time.Duration(float64(d) * part) }

// grid divides time into slots that are the same for all devices whose
// certificates live about as long.
type grid struct {
	length   time.Duration // 0: there is no rate
	capacity int           // planned renewals that a slot may have
}

// newGrid makes slots that a window has slotsPerWindow of. Their capacity is a
// power of two, so that a slot for longer certificates is made of two for
// shorter ones.
func newGrid(rate Rate, window time.Duration) grid {
	if rate.Unlimited() || window <= 0 {
		return grid{}
	}
	one := float64(rate.Per) / float64(rate.N) * reserveDen / reserveNum
	g := grid{length: time.Duration(one), capacity: 1}
	for one*float64(2*g.capacity)*slotsPerWindow <= float64(window) {
		g.capacity *= 2
		g.length = time.Duration(one * float64(g.capacity))
	}
	return g
}

// from returns the slots of a window, the one of at first, then those after it
// and then those before it.
func (g grid) from(at time.Time, window Span) []Span {
	align := func(t time.Time) int64 {
		n := t.UnixNano()
		return n - (n%int64(g.length)+int64(g.length))%int64(g.length)
	}
	var before, after []Span
	own := align(at)
	for n := align(window.From); n <= window.To.UnixNano(); n += int64(g.length) {
		slot := Span{From: time.Unix(0, n).UTC(), To: time.Unix(0, n+int64(g.length)).UTC()}
		if n < own {
			before = append(before, slot)
		} else {
			after = append(after, slot)
		}
	}
	return append(after, before...)
}

// room reports whether one more renewal may be planned in a part of a slot,
// of which only what lies outside maintenance windows counts. The first and the
// last slot of a window are cut off, and take less.
func (g grid) room(slot, part Span, calendar Calendar, planned Planned) (bool, error) {
	n, err := planned(slot.From, slot.To)
	if err != nil || n >= g.capacity {
		return false, err
	}
	if calendar.Empty() && part == slot {
		return true, nil
	}
	var free time.Duration
	for _, s := range calendar.Free(part) {
		free += s.To.Sub(s.From)
	}
	capacity := math.Ceil(float64(g.capacity) * float64(free) / float64(g.length))
	n, err = planned(part.From, part.To)
	return float64(n) < capacity, err
}

// pick returns the time at a fraction of the sum of some spans; none if they
// are empty.
func pick(spans []Span, part float64) (time.Time, bool) {
	var sum time.Duration
	for _, s := range spans {
		sum += s.To.Sub(s.From)
	}
	at := fraction(sum, part)
	for _, s := range spans {
		if length := s.To.Sub(s.From); at >= length {
			at -= length
			continue
		}
		return s.From.Add(at), true
	}
	return time.Time{}, false
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
