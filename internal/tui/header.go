package tui

import (
	"fmt"
	"strings"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
)

// largeHeader is the number of lines of the header where there is room.
const largeHeader = 8

// fact is one count of the header.
type fact struct {
	n     int
	word  string
	short string
	style style // where it is not 0
}

func (m *model) counts() []fact {
	c, t := m.census, m.theme
	return []fact{
		{c.Operational, "operational", "ok", t.good},
		{c.Due, "due", "due", t.warn},
		{c.Failing, "failing", "fail", t.warn},
		{c.Expired, "expired", "exp", t.bad},
		{c.Quarantined, "quarantined", "quar", t.bad},
		{c.Paused, "paused", "paus", t.strong},
	}
}

func (m *model) header(l layout) []string {
	out := []string{m.titleLine()}
	if l.large {
		return append(out, m.largeHeader()...)
	}
	out = append(out, m.countLine())
	if l.headerLines >= 3 {
		out = append(out, m.runwayLine(m.theme.line(m.w).space(1).put(m.theme.dim, "Runway").to(9)))
	}
	if l.headerLines >= 5 {
		out = append(out, m.barsLine(), m.caLine())
	}
	return out
}

// titleLine says who, in what role, how fresh, and when.
func (m *model) titleLine() string {
	t := m.theme
	l := t.barLine(m.w).space(1).put(t.title, "edgeclm")
	if m.o.Title != "" {
		l.put("", " ").put("", clean(m.o.Title, m.o.ASCII))
	}
	at := m.now.In(m.o.Zone)
	clock := at.Format("Mon 2 Jan 15:04:05 MST") + " "
	role, s := m.roleText()
	stale := m.stale()
	if stale != "" {
		role, s = stale, t.bad
	}
	if l.room() < max(50, width(clock)+width(role)+5) {
		clock = at.Format("15:04:05 MST") + " "
	}
	if stale != "" && l.room() < 50 {
		clock = "" // it goes on, the data does not
	}
	if room := l.room() - width(clock) - 5; room > 8 {
		l.space(3).put(s, fitMiddle(role, room, t.glyphs.ellipsis))
	}
	return l.end(t.dim, clock).String()
}

func (m *model) roleText() (text string, s style) {
	t := m.theme
	if m.leaving {
		return "finishing " + devices(len(m.work)), t.warn
	}
	text = clean(m.role.words(), m.o.ASCII)
	switch {
	case m.role.ReadOnly:
		return text, t.dim
	case !m.role.Renewing:
		return text, t.warn
	}
	if n := len(m.work); n > 0 {
		text = fmt.Sprintf("renewing %s %s working", t.glyphs.dot, count(n))
	}
	if m.queued > 0 {
		text += fmt.Sprintf(" %s %s queued", t.glyphs.dot, count(m.queued))
	}
	return text, t.good
}

// countLine writes the counts on one line: in full, or as short as it takes.
func (m *model) countLine() string {
	t := m.theme
	if m.census.At.IsZero() {
		return t.line(m.w).space(1).put(t.dim, "counting "+t.glyphs.ellipsis).String()
	}
	for _, how := range []struct {
		gap         int
		short, some bool
	}{{3, false, false}, {2, false, false}, {2, true, false}, {1, true, true}} {
		l := t.line(m.w).space(1)
		need := 1
		for _, f := range m.counts() {
			if how.some && f.n == 0 {
				continue
			}
			word := f.word
			if how.short {
				word = f.short
			}
			s := f.style
			if f.n == 0 {
				s = t.dim
			}
			takes := width(count(f.n)) + 1 + len(word)
			need += takes + how.gap
			if need > 1+takes+how.gap {
				l.space(how.gap)
			}
			if l.room() >= takes {
				l.put(s, count(f.n)).put("", " ").put(t.dim, word)
			}
		}
		if need-how.gap <= m.w || how.some {
			return l.String()
		}
	}
	return ""
}

// runwayLine says how long the fleet lasts if the CA stopped now.
func (m *model) runwayLine(l *line) string {
	c, t := m.census, m.theme
	if c.At.IsZero() {
		return l.String()
	}
	if c.FirstExpiry.IsZero() {
		return l.put(t.dim, "no valid certificate").String()
	}
	left := c.FirstExpiry.Sub(m.now)
	s := t.good
	switch {
	case left <= 0 || left < m.o.RunwayCritical:
		s = t.bad
	case left < m.o.RunwayWarning:
		s = t.warn
	}
	if left <= 0 {
		l.put(s, "over").put(t.dim, "  ")
		return l.put("", clean(c.FirstExpiring, m.o.ASCII)).put(t.dim, " has expired since "+moment(c.FirstExpiry, m.now, m.o.Zone)).String()
	}
	l.put(bold(s), span(left)).put(t.dim, "  until ").put("", clean(c.FirstExpiring, m.o.ASCII))
	return l.put(t.dim, " ends, "+moment(c.FirstExpiry, m.now, m.o.Zone)).String()
}

func bold(s style) style {
	if s == "" || s == "1" {
		return "1"
	}
	return "1;" + s
}

func (b bars) peak() (most, at, sum int) {
	for i, n := range b.n {
		sum += n
		if n > most {
			most, at = n, i
		}
	}
	return most, at, sum
}

// reach is how far the bars go.
func (b bars) reach() string { return span(time.Duration(len(b.n)) * b.step) }

// barsLine draws the next renewals in one line.
func (m *model) barsLine() string {
	t, b := m.theme, m.bars
	l := t.line(m.w).space(1)
	if len(b.n) == 0 {
		return l.put(t.dim, "Next").to(9).put(t.dim, t.glyphs.ellipsis).String()
	}
	most, at, sum := b.peak()
	l.put(t.dim, "Next "+b.reach()).space(1).to(9)
	if sum == 0 {
		return l.put(t.dim, "no renewals").String()
	}
	for k, spark := range sparks(t.glyphs.bars, b.n, most) {
		if b.n[k] == 0 {
			l.put(t.dim, t.glyphs.none)
		} else {
			l.put(t.accent, spark)
		}
	}
	l.put("", "  "+count(sum)).put(t.dim, each(sum, " renewal", " renewals"))
	if most > 0 {
		l.put(t.dim, ", most ").put("", count(most)).put(t.dim, " at "+m.barTime(at))
	}
	return l.String()
}

func (m *model) barTime(i int) string {
	at := m.bars.from.Add(time.Duration(i) * m.bars.step)
	if m.bars.step < time.Minute {
		return at.In(m.o.Zone).Format("15:04:05")
	}
	return at.In(m.o.Zone).Format("15:04")
}

// sparks draws numbers as one character each; what is not 0 shows.
func sparks(levels []string, n []int, most int) []string {
	out := make([]string, len(n))
	for i, v := range n {
		out[i] = levels[0]
		if v > 0 && most > 0 {
			out[i] = levels[max(1, v*(len(levels)-1)/most)]
		}
	}
	return out
}

// caFacts says how a CA is.
func (m *model) caFacts(b enrol.Breaker) (glyph string, s style, words string) {
	t := m.theme
	switch b.State {
	case enrol.BreakerOpen:
		words = "not asked"
		if left := b.Until.Sub(m.now); left > 0 {
			words += " for " + span(left)
		}
		if why := clean(firstText(b.LastError, string(b.Class)), m.o.ASCII); why != "" {
			words += ": " + why
		}
		return t.glyphs.caDown, t.bad, words
	case enrol.BreakerHalfOpen:
		return t.glyphs.caTrying, t.warn, "one device tries it"
	}
	switch {
	case b.LastSuccess.IsZero() && b.LastFailure.IsZero():
		return t.glyphs.caUp, t.dim, "not asked yet"
	case b.LastFailure.After(b.LastSuccess):
		return t.glyphs.caTrying, t.warn, "failed " + ago(b.LastFailure, m.now) + ": " + clean(b.LastError, m.o.ASCII)
	}
	words = "answered " + ago(b.LastSuccess, m.now)
	if b.Latency > 0 {
		words = took(b.Latency) + ", " + words
	}
	return t.glyphs.caUp, t.good, words
}

func firstText(s ...string) string {
	for _, t := range s {
		if t != "" {
			return t
		}
	}
	return ""
}

func ago(at, now time.Time) string {
	if d := now.Sub(at); d >= time.Second {
		return span(d) + " ago"
	}
	return "just now"
}

// caLine says how the CAs are, the one in use first.
func (m *model) caLine() string {
	t := m.theme
	l := t.line(m.w).space(1).put(t.dim, "CA").to(9)
	if len(m.cas) == 0 {
		if m.reads[readCAs].good.IsZero() {
			return l.put(t.dim, t.glyphs.ellipsis).String()
		}
		return l.put(t.warn, "none is configured (clmctl ca add)").String()
	}
	// Each gets what it takes, up to its share and what the next ones leave.
	const gap = 3
	words := make([]string, len(m.cas))
	needs := make([]int, len(m.cas))
	for i, b := range m.cas {
		_, _, words[i] = m.caFacts(b)
		needs[i] = width(clean(b.CA, m.o.ASCII)) + width(words[i]) + 3 + gap
	}
	room := l.room() + gap
	for i, b := range m.cas {
		mine := room
		for _, next := range needs[i+1:] {
			mine -= min(next, room/(len(m.cas)-i))
		}
		room -= min(mine, needs[i])
		end := l.at + min(mine, needs[i])
		glyph, s, _ := m.caFacts(b)
		l.put(s, glyph).put("", " "+clean(b.CA, m.o.ASCII)+" ")
		l.put(t.dim, fitMiddle(words[i], end-gap-l.at, t.glyphs.ellipsis)).to(end)
	}
	return l.String()
}

// largeHeader is three columns: counts and runway, bars, CAs.
func (m *model) largeHeader() []string {
	n := largeHeader - 1
	middle := 2*barCount + 5
	left := max(60, min(68, (m.w-middle)*66/100))
	right := m.w - left - middle
	return beside(n, exactly(m.tiles(left), left, n), exactly(m.chart(middle), middle, n), exactly(m.caList(right), right, n))
}

func (m *model) tiles(columns int) []string {
	t := m.theme
	out := blank(columns, 1)
	numbers, words := t.line(columns).space(1), t.line(columns).space(1)
	if m.census.At.IsZero() {
		return append(out, t.line(columns).space(1).put(t.dim, "counting "+t.glyphs.ellipsis).String())
	}
	for _, f := range m.counts() {
		s := bold(f.style)
		if f.n == 0 {
			s = t.dim
		}
		w := max(width(f.word), width(count(f.n)))
		numbers.cell(s, count(f.n), w, true).space(2)
		words.cell(t.dim, f.word, w, true).space(2)
	}
	runway := m.runwayLine(t.line(columns).space(1).put(t.dim, "Runway").to(14))
	return append(out, numbers.String(), words.String(), blank(columns, 1)[0], runway, m.successLine(columns))
}

func (m *model) successLine(columns int) string {
	c, t := m.census, m.theme
	l := t.line(columns).space(1).put(t.dim, "Last success").to(14)
	if c.LastSuccess.IsZero() {
		l.put(t.dim, "none yet")
	} else {
		l.put("", ago(c.LastSuccess, m.now))
	}
	if !c.NextDue.IsZero() && c.NextDue.After(m.now) {
		l.put(t.dim, ", next is due in ").put("", span(c.NextDue.Sub(m.now)))
	}
	if c.NeverReached > 0 {
		l.put(t.dim, ", ").put(t.warn, count(c.NeverReached)).put(t.dim, " never reached")
	}
	return l.String()
}

// chart draws the next renewals three lines high, with hours below.
func (m *model) chart(columns int) []string {
	t, b := m.theme, m.bars
	const high = 3
	title := t.line(columns).put(t.dim, "Renewals")
	if len(b.n) == 0 {
		return []string{blank(columns, 1)[0], title.String()}
	}
	most, at, sum := b.peak()
	title.put(t.dim, ", next "+b.reach()+": ").put("", count(sum))
	if most > 0 {
		title.put(t.dim, ", most ").put("", count(most)).put(t.dim, " at "+m.barTime(at))
	}
	out := []string{blank(columns, 1)[0], title.String()}
	levels := len(t.glyphs.bars) - 1
	for row := high - 1; row >= 0; row-- {
		l := t.line(columns)
		for _, n := range b.n {
			g := 0
			if n > 0 && most > 0 {
				g = max(1, n*high*levels/most) - row*levels
			}
			l.put(t.accent, t.glyphs.bars[max(0, min(g, levels))]).put("", " ")
		}
		out = append(out, l.String())
	}
	axis := t.line(columns)
	for i := 0; i < len(b.n); i += 6 {
		axis.to(2*i).put(t.dim, m.barTime(i))
	}
	return append(out, axis.String())
}

func (m *model) caList(columns int) []string {
	t := m.theme
	out := []string{blank(columns, 1)[0], t.line(columns).put(t.dim, "Certification authorities").String()}
	if len(m.cas) == 0 && !m.reads[readCAs].good.IsZero() {
		return append(out, t.line(columns).put(t.warn, "none (clmctl ca add)").String())
	}
	// What there is room for beside a line for each name.
	room := largeHeader - 1 - len(out) - len(m.cas)
	for i, b := range m.cas {
		glyph, s, words := m.caFacts(b)
		l := t.line(columns).put(s, glyph).put("", " "+clean(b.CA, m.o.ASCII))
		if i > 0 && b.State == enrol.BreakerClosed {
			l.put(t.dim, " (failover)")
		}
		out = append(out, l.String())
		parts := wrap(words, columns-3)
		n := min(len(parts), max(1, room-(len(m.cas)-1-i)))
		room -= n
		for k, part := range parts[:n] {
			if k == n-1 && n < len(parts) {
				part = strings.Join(parts[k:], " ") // cut, and seen to be
			}
			out = append(out, t.line(columns).space(2).put(t.dim, fitMiddle(part, columns-3, t.glyphs.ellipsis)).String())
		}
	}
	return out
}
