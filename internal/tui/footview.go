package tui

import (
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// hintOf is a key and what it does.
type hintOf struct{ key, does string }

// foot is the last line: what is being typed, what was said, or the keys.
func (m *model) foot() string {
	t := m.theme
	l := t.barLine(m.w)
	switch {
	case m.leaving:
		return l.space(1).put(t.warn, "finishing "+devices(len(m.work))+t.glyphs.ellipsis).put(t.dim, " q again leaves at once").String()
	case m.filtering:
		l.space(1).put(t.key, "/")
		m.filter.put(l, t)
		return l.end(t.dim, "text  key=value  state:due  -not  "+t.glyphs.dot+"  enter keeps, esc clears ").String()
	case m.notice != "":
		s := t.good
		if m.noticeBad {
			s = t.bad
		}
		return l.space(1).put(s, m.notice).String()
	}
	for _, h := range m.hints() {
		need := width(h.key) + 1 + width(h.does) + 2
		if l.room() < need {
			continue
		}
		l.space(1).put(t.key, h.key).put("", " ").put(t.dim, h.does).space(1)
	}
	return l.String()
}

// hints are the keys that mean something now, the most useful first.
func (m *model) hints() []hintOf {
	if m.help {
		return []hintOf{{"esc", "back"}, {"q", "back"}}
	}
	out := []hintOf{{"?", "help"}, {"q", "quit"}}
	if m.focus == onTable && m.layout().tableRows > 0 {
		out = append(out, hintOf{"/", "filter"}, hintOf{"s", "sort"}, hintOf{"enter", "detail"})
	} else {
		out = append(out, hintOf{"esc", "back"})
	}
	if !m.role.ReadOnly {
		if m.role.Renewing {
			out = append(out, hintOf{"r", "renew"})
		}
		out = append(out, hintOf{"p", "pause"})
		if i := m.selected(); i != nil && i.Quarantined {
			out = append(out, hintOf{"x", "release"})
		}
	}
	return append(out, hintOf{"e", "events"}, hintOf{"space", "mark"}, hintOf{"tab", "pane"})
}

// overlay draws the dialog over the middle of the screen.
func (m *model) overlay(lines []string) {
	d, t := m.dialog, m.theme
	w := min(64, m.w-2)
	if w < 10 {
		return
	}
	inner := w - 4
	var box []*line
	row := func() *line {
		l := t.line(w)
		l.under = t.bar
		return l.space(2)
	}
	add := func(s style, text string) {
		for _, part := range wrap(text, inner) {
			box = append(box, row().put(s, part))
		}
	}
	box = append(box, row())
	add(bold(t.title), d.title)
	for _, p := range d.text {
		box = append(box, row())
		add("", p)
	}
	box = append(box, row())
	if d.asks {
		l := row().put(t.key, "Reason ")
		d.reason.put(l, t)
		box = append(box, l, row(), row().put(t.key, "enter").put("", " goes on   ").put(t.key, "esc").put("", " leaves it"))
	} else {
		if r := strings.TrimSpace(d.reason.String()); r != "" {
			add(t.dim, "Reason: "+clean(r, m.o.ASCII))
			box = append(box, row())
		}
		box = append(box, row().put(t.key, "y").put("", " yes   ").put(t.key, "n").put("", " no"))
	}
	box = append(box, row())
	if over := len(box) - len(lines); over > 0 {
		// The question and its answer are what must be seen.
		box = append(box[:max(1, len(box)-over-3)], box[len(box)-min(3, len(box)):]...)
		box = box[:min(len(box), len(lines))]
	}
	top, left := max(0, (len(lines)-len(box))/2), (m.w-w)/2
	for k, b := range box {
		under := lines[top+k]
		lines[top+k] = cutOut(under, left, left+w, m.w, b.String())
	}
}

// cutOut replaces some columns of a line; a wide character that reaches over an
// edge becomes a blank.
func cutOut(line string, from, to, columns int, by string) string {
	before, after := ansi.Truncate(line, from, ""), ansi.TruncateLeft(line, to, "")
	if ansi.StringWidth(after) > columns-to {
		after = " " + ansi.TruncateLeft(line, to+1, "")
	}
	return before + strings.Repeat(" ", max(0, from-ansi.StringWidth(before))) + by + after
}
