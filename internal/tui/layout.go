package tui

import "strings"

// layout is how many lines and columns each part of the screen has.
type layout struct {
	headerLines int
	tableRows   int // 0: no table
	tableWidth  int
	detailWidth int // 0: no detail
	detailLines int
	eventLines  int // 0: no events
	large       bool
}

func (l layout) detail() bool { return l.detailWidth > 0 }

// layout divides the screen: title and header, the body, events, and one line
// at the foot.
func (m *model) layout() layout {
	var l layout
	l.large = m.w >= wideWidth && m.h >= tallHeight
	switch {
	case l.large:
		l.headerLines = largeHeader
	case m.h >= 18:
		l.headerLines = 5
	case m.h >= 12:
		l.headerLines = 3
	default:
		l.headerLines = 2
	}
	body := m.h - l.headerLines - 1
	events := m.h >= openEvents
	if m.eventsAsk != nil {
		events = *m.eventsAsk
	}
	if events && body >= 8 {
		l.eventLines = max(2, min(body/4, 10))
		body -= l.eventLines + 1
	}
	l.tableWidth = m.w
	switch {
	case m.w >= sideWidth && m.h >= sideHeight:
		l.detailWidth = max(56, m.w*38/100)
		l.tableWidth = m.w - l.detailWidth - 1
		l.detailLines = body - 1
	case m.open:
		l.detailWidth, l.tableWidth = m.w, 0
		l.detailLines = body - 1
	}
	if l.tableWidth > 0 {
		l.tableRows = max(0, body-2) // its title and its heading
	}
	return l
}

// screen draws everything.
func (m *model) screen() string {
	if m.w <= 0 || m.h <= 0 {
		return ""
	}
	if m.w < minWidth || m.h < minHeight {
		return strings.Join(m.tiny(), "\n")
	}
	l := m.layout()
	lines := exactly(m.header(l), m.w, l.headerLines)
	bodyLines := m.h - l.headerLines - 1
	if l.eventLines > 0 {
		bodyLines -= l.eventLines + 1
	}
	switch {
	case m.help:
		bodyLines = m.h - l.headerLines - 1
		lines = append(lines, exactly(m.helpPane(m.w, bodyLines), m.w, bodyLines)...)
	case l.tableWidth > 0 && l.detail():
		fence := make([]string, bodyLines)
		for i := range fence {
			fence[i] = m.theme.line(1).put(m.theme.dim, m.theme.glyphs.fence).String()
		}
		lines = append(lines, beside(bodyLines,
			exactly(m.table(l), l.tableWidth, bodyLines), fence,
			exactly(m.detailView(l), l.detailWidth, bodyLines))...)
	case l.detail():
		lines = append(lines, exactly(m.detailView(l), m.w, bodyLines)...)
	default:
		lines = append(lines, exactly(m.table(l), m.w, bodyLines)...)
	}
	if l.eventLines > 0 && !m.help {
		lines = append(lines, exactly(m.eventsPane(l), m.w, l.eventLines+1)...)
	}
	lines = append(lines, m.foot())
	lines = exactly(lines, m.w, m.h)
	if m.dialog != nil {
		m.overlay(lines)
	}
	return strings.Join(lines, "\n")
}

// tiny is what still fits on a stamp: how the fleet is.
func (m *model) tiny() []string {
	c := m.census
	var out []string
	add := func(s style, text string) { out = append(out, m.theme.line(m.w).put(s, text).String()) }
	if stale := m.stale(); stale != "" {
		add(m.theme.bad, stale)
	}
	switch {
	case m.leaving:
		add(m.theme.warn, "finishing "+devices(len(m.work)))
	case c.At.IsZero():
		add("", "reading "+m.theme.glyphs.ellipsis)
	default:
		for _, f := range m.counts() {
			if f.n > 0 {
				add(f.style, count(f.n)+" "+f.word)
			}
		}
	}
	return exactly(out, m.w, m.h)
}
