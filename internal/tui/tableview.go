package tui

import (
	"fmt"
	"time"

	"github.com/edgeclm/edgeclm/internal/renewal"
)

// column is one column of the table.
type column struct {
	by    order
	title string
	width int
	right bool
	put   func(l *line, i *item, columns int)
}

// columns says what the table shows at a width: what matters most first.
func (m *model) columns(w int) []column {
	const gap, gutter = 2, 2
	name := column{by: byName, title: "NAME", width: 16, put: m.putName}
	state := column{by: byStatus, title: "STATE", width: 14, put: m.putStatus}
	ends := column{by: byEnd, title: "ENDS IN", width: 8, right: true, put: m.putEnd}
	renews := column{by: byRenewal, title: "RENEWS", width: 8, right: true, put: m.putRenewal}
	note := column{by: byFailure, title: "LAST ERROR", put: m.putFailure}
	labels := column{by: byLabels, title: "LABELS", put: m.putLabels}
	address := column{by: byAddress, title: "ADDRESS", width: 21, put: m.putAddress}
	// Names are cut before the column of times goes.
	name.width = max(8, min(name.width, w-gutter-state.width-ends.width-2*gap))
	if w < gutter+10+state.width+ends.width+2*gap {
		name.width = max(8, w-gutter-state.width-gap)
		return []column{name, state}
	}
	out := []column{name, state, ends}
	used := gutter + name.width + state.width + ends.width + 2*gap
	add := func(c column, least int) bool {
		if used+gap+max(c.width, least) > w {
			return false
		}
		used += gap + max(c.width, least)
		c.width = max(c.width, least)
		out = append(out, c)
		return true
	}
	add(renews, 0)
	both := w >= 104
	if !both {
		note.title, note.put = "LAST ERROR, LABELS", m.putNote
	}
	if add(note, 12) && both {
		add(labels, 10)
		add(address, 0)
	}
	// What is left makes names, errors and labels wider.
	grow := func(by order, upTo int) {
		for k := range out {
			if out[k].by == by {
				n := min(w-used, upTo-out[k].width)
				if n > 0 {
					out[k].width += n
					used += n
				}
			}
		}
	}
	grow(byName, 18)
	grow(byFailure, 30)
	grow(byLabels, 22)
	grow(byName, 24)
	grow(byFailure, 60)
	grow(byLabels, 40)
	grow(byFailure, w)
	grow(byName, min(w, 64))
	return out
}

// table draws the rows that are visible, and no others.
func (m *model) table(l layout) []string {
	t := m.theme
	columns := m.columns(l.tableWidth)
	out := []string{m.tableTitle(l.tableWidth), m.heading(columns, l.tableWidth)}
	if len(m.shown.slots) == 0 {
		return append(out, m.emptyTable(l.tableWidth)...)
	}
	for k := m.top; k < min(m.top+l.tableRows, len(m.shown.slots)); k++ {
		slot := m.shown.slots[k]
		row := t.line(l.tableWidth)
		i := m.rows.at(slot)
		if i == nil {
			out = append(out, row.space(2).put(t.dim, "gone").String())
			continue
		}
		cursor, mark := " ", " "
		if k == m.cursor {
			row.under = t.selected
			if cursor = t.glyphs.cursor; m.focus != onTable && m.o.NoColour {
				row.under = ""
			}
		}
		if _, ok := m.marked[slot]; ok {
			mark = t.glyphs.mark
		}
		row.put(t.accent, cursor).put(t.accent, mark)
		for n, c := range columns {
			if n > 0 {
				row.space(2)
			}
			from := row.at
			c.put(row, i, c.width)
			row.to(from + c.width)
		}
		out = append(out, row.String())
	}
	return out
}

func (m *model) tableTitle(w int) string {
	title := count(m.rows.len()) + each(m.rows.len(), " device", " devices")
	if len(m.want.terms) > 0 {
		title = count(len(m.shown.slots)) + " of " + title
	}
	order := "by " + m.want.by.String()
	if m.want.reverse {
		order += ", reversed"
	}
	notes := []string{order}
	if n := len(m.marked); n > 0 {
		notes = append([]string{count(n) + " marked"}, notes...)
	}
	if n := len(m.shown.slots); n > 0 && m.layout().tableRows < n {
		notes = append(notes, fmt.Sprintf("%d %%", (m.cursor+1)*100/n))
	}
	if m.fill != nil && m.fill.into == m.rows && m.census.Total > 0 {
		notes = append([]string{fmt.Sprintf("reading %d %%", min(100, m.rows.len()*100/m.census.Total))}, notes...)
	}
	if f := m.filter.String(); f != "" && !m.filtering {
		notes = append([]string{"/" + clean(f, m.o.ASCII)}, notes...)
	}
	return m.theme.rule(w, m.focus == onTable, title, notes...)
}

func (m *model) heading(columns []column, w int) string {
	t := m.theme
	l := t.line(w).space(2)
	for n, c := range columns {
		if n > 0 {
			l.space(2)
		}
		title, s := c.title, t.dim
		if c.by == m.want.by {
			arrow := t.glyphs.down
			if m.want.reverse {
				arrow = t.glyphs.up
			}
			title, s = fit(title, c.width-1, "")+arrow, t.key
		}
		l.cell(s, title, c.width, c.right)
	}
	return l.String()
}

func (m *model) emptyTable(w int) []string {
	t := m.theme
	var text, more string
	switch {
	case m.rows.len() == 0 && m.loadErr != nil:
		text = "The inventory cannot be read: " + clean(m.loadErr.Error(), m.o.ASCII)
	case m.fill != nil || m.arranger != nil:
		text = "reading the inventory " + t.glyphs.ellipsis
	case len(m.want.terms) > 0:
		text, more = "No device fits the filter.", "esc clears it."
	default:
		text, more = "No device is commissioned yet.", "clmctl commission MANIFEST brings the first ones."
	}
	return []string{
		blank(w, 1)[0], t.line(w).space(2).put("", text).String(), t.line(w).space(2).put(t.dim, more).String(),
	}
}

func (m *model) putName(l *line, i *item, w int) {
	s := style("")
	if i.Paused {
		s = m.theme.dim
	}
	l.put(s, fit(i.name, w, m.theme.glyphs.ellipsis))
}

func (m *model) putStatus(l *line, i *item, _ int) {
	t := m.theme
	if since, ok := m.work[i.Name]; ok {
		frame := int(max(0, m.now.Sub(since)/tickEvery)) % len(t.glyphs.spin)
		l.put(t.busy, t.glyphs.spin[frame]).put(t.busy, " renewing")
		return
	}
	s := statusOf(&i.Row, m.now)
	l.put(t.of(s), t.glyphs.status[s]).put("", " ").put(t.of(s), s.String())
}

func (m *model) putEnd(l *line, i *item, w int) {
	t := m.theme
	left := i.NotAfter.Sub(m.now)
	switch {
	case i.NotAfter.IsZero():
		l.cell(t.dim, "-", w, true)
	case left <= 0:
		l.cell(t.bad, coarse(left)+" ago", w, true)
	default:
		l.cell(m.urgency(i.Row, left), span(left), w, true)
	}
}

// urgency colours what is left of a certificate by its lifetime: the last third
// should not be reached, the last tenth is trouble.
func (m *model) urgency(r renewal.Row, left time.Duration) style {
	switch life := r.NotAfter.Sub(r.NotBefore); {
	case left < life/10:
		return m.theme.bad
	case left < life/3:
		return m.theme.warn
	}
	return ""
}

func (m *model) putRenewal(l *line, i *item, w int) {
	t := m.theme
	switch {
	case i.Paused || i.Quarantined:
		l.cell(t.dim, "-", w, true)
	case i.NextAttempt.After(m.now) && (i.LastError != "" || !i.RenewAt.After(m.now)):
		l.cell(t.warn, "try "+coarse(i.NextAttempt.Sub(m.now)), w, true)
	case isDue(&i.Row, m.now):
		l.cell(t.warn, "now", w, true)
	default:
		l.cell("", span(i.RenewAt.Sub(m.now)), w, true)
	}
}

func (m *model) putFailure(l *line, i *item, w int) {
	if w < 28 {
		l.put("", fit(i.failure, w, m.theme.glyphs.ellipsis))
		return
	}
	l.put("", fitMiddle(i.failure, w, m.theme.glyphs.ellipsis))
}

func (m *model) putLabels(l *line, i *item, w int) {
	l.put(m.theme.dim, fit(i.labels, w, m.theme.glyphs.ellipsis))
}

func (m *model) putAddress(l *line, i *item, w int) {
	l.put(m.theme.dim, fit(i.address, w, m.theme.glyphs.ellipsis))
}

// putNote is what one narrow column can say: the error, else the labels.
func (m *model) putNote(l *line, i *item, w int) {
	if i.failure != "" {
		m.putFailure(l, i, w)
		return
	}
	m.putLabels(l, i, w)
}
