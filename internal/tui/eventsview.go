package tui

import (
	"github.com/edgeclm/edgeclm/internal/enrol"
)

// eventsPane shows what happens, the newest last.
func (m *model) eventsPane(l layout) []string {
	t := m.theme
	notes := []string{}
	if m.eventsUp > 0 {
		notes = append(notes, count(m.eventsUp)+" newer below")
	}
	out := []string{t.rule(m.w, m.focus == onEvents, "Events", notes...)}
	if len(m.events) == 0 {
		text := "nothing has happened yet"
		if !m.started {
			text = "reading " + t.glyphs.ellipsis
		}
		return append(out, t.line(m.w).space(1).put(t.dim, text).String())
	}
	end := len(m.events) - m.eventsUp
	for _, e := range m.events[max(0, end-l.eventLines):end] {
		row := t.line(m.w).space(1)
		row.put(t.dim, moment(e.At, m.now, m.o.Zone)).space(2)
		row.cell("", clean(e.Device, m.o.ASCII), max(12, min(24, m.w/5)), false).space(2)
		row.cell(m.kindStyle(e.Kind), clean(string(e.Kind), m.o.ASCII), 13, false).space(2)
		row.put("", clean(eventText(e.Event), m.o.ASCII))
		if e.Took > 0 {
			row.put(t.dim, " ("+took(e.Took)+")")
		}
		out = append(out, row.String())
	}
	return out
}

func (m *model) kindStyle(k enrol.EventKind) style {
	switch k {
	case enrol.EventCompleted, enrol.EventServed, enrol.EventDelivered:
		return m.theme.good
	case enrol.EventFailed, enrol.EventQuarantined, enrol.EventRolledBack:
		return m.theme.bad
	case enrol.EventRetry, enrol.EventWarning, enrol.EventNotDelivered:
		return m.theme.warn
	case enrol.EventProgress:
		return m.theme.dim
	}
	return m.theme.accent
}
