package tui

import (
	tea "charm.land/bubbletea/v2"
)

// key answers a key. What is open gets it first: a dialog, the filter's line,
// the help.
func (m *model) key(k tea.KeyPressMsg) tea.Cmd {
	name := k.String()
	if name == "ctrl+c" {
		return m.leave()
	}
	if name == "ctrl+z" {
		return tea.Suspend
	}
	switch {
	case m.dialog != nil:
		return m.dialogKey(k)
	case m.filtering:
		return m.filterKey(k)
	case m.help:
		m.help = false
		if name == "q" || name == "?" || name == "esc" || name == "enter" {
			return nil
		}
	}
	if cmd, ok := m.globalKey(name); ok {
		return cmd
	}
	switch m.focus {
	case onEvents:
		if n, ok := m.motion(name, m.layout().eventLines, len(m.events)); ok {
			m.eventsUp -= n
			return nil
		}
	case onDetail:
		if n, ok := m.motion(name, m.layout().detailLines, len(m.detail.lines)); ok {
			m.detail.scroll(n, m.layout().detailLines)
			return nil
		}
	}
	return m.tableKey(name)
}

// motion says by how many lines a key moves; far more than there are for the
// ends.
func (m *model) motion(name string, page, all int) (lines int, ok bool) {
	page, all = max(1, page-1), max(1, all)
	switch name {
	case "up", "k":
		return -1, true
	case "down", "j":
		return 1, true
	case "pgup", "ctrl+b":
		return -page, true
	case "pgdown", "ctrl+f":
		return page, true
	case "ctrl+u":
		return -max(1, page/2), true
	case "ctrl+d":
		return max(1, page/2), true
	case "home", "g":
		return -all, true
	case "end", "G":
		return all, true
	}
	return 0, false
}

func (m *model) globalKey(name string) (tea.Cmd, bool) {
	switch name {
	case "q":
		return m.leave(), true
	case "?", "f1":
		m.help = true
	case "/":
		m.filtering, m.focus = true, onTable
		m.filter.at = len(m.filter.text)
	case "e":
		on := m.layout().eventLines == 0
		m.eventsAsk = &on
	case "tab":
		m.moveFocus(1)
	case "shift+tab":
		m.moveFocus(-1)
	case "ctrl+l":
		return tea.Batch(tea.ClearScreen, tea.RequestBackgroundColor, m.reload(), m.poll(true)), true
	case "esc":
		return m.back(), true
	default:
		return nil, false
	}
	return nil, true
}

// moveFocus goes to the next pane that is there.
func (m *model) moveFocus(by int) {
	l := m.layout()
	there := []focus{}
	at := 0
	for f := onTable; f <= onEvents; f++ {
		if f == onTable && l.tableRows == 0 || f == onDetail && !l.detail() || f == onEvents && l.eventLines == 0 {
			continue
		}
		if f == m.focus {
			at = len(there)
		}
		there = append(there, f)
	}
	if len(there) > 0 {
		m.focus = there[(at+by+len(there))%len(there)]
	}
}

// back undoes what was opened last: the detail, the focus, the marks, the filter.
func (m *model) back() tea.Cmd {
	switch {
	case m.focus != onTable:
		m.focus, m.open = onTable, false
	case m.open:
		m.open = false
	case len(m.marked) > 0:
		clear(m.marked)
	case m.filter.String() != "":
		return m.setFilter("")
	case m.notice != "":
		m.notice = ""
	}
	return nil
}

func (m *model) tableKey(name string) tea.Cmd {
	if n, ok := m.motion(name, m.layout().tableRows, len(m.shown.slots)); ok {
		m.cursor = max(0, min(m.cursor+n, len(m.shown.slots)-1))
		// At the top the cursor stays with the worst, else with its device.
		if m.hold(); m.cursor == 0 {
			m.held = ""
		}
		return m.wantDetail()
	}
	switch name {
	case "enter", "right", "l":
		if m.selected() != nil {
			m.open, m.focus = true, onDetail
			return m.wantDetail()
		}
	case "left", "h":
		if m.focus == onDetail {
			return m.back()
		}
	case "s":
		q := m.want
		q.by = (q.by + 1) % orders
		return m.ask(q)
	case "S":
		q := m.want
		q.reverse = !q.reverse
		return m.ask(q)
	case "space", " ":
		return m.mark()
	case "*", "A":
		m.markAll()
	case "r", "p", "x":
		return m.propose(name)
	case "0", "1", "2", "3", "4", "5", "6", "7":
		return m.setFilter([]string{"", "state:operational", "state:due", "state:failing", "state:expired",
			"state:quarantined", "state:paused", "state:not-enrolled"}[name[0]-'0'])
	}
	return nil
}

// mark marks the device under the cursor, or no longer, and moves on.
func (m *model) mark() tea.Cmd {
	if m.selected() == nil {
		return nil
	}
	slot := m.shown.slots[m.cursor]
	if _, ok := m.marked[slot]; ok {
		delete(m.marked, slot)
	} else {
		m.marked[slot] = struct{}{}
	}
	m.cursor = min(m.cursor+1, len(m.shown.slots)-1)
	m.hold()
	return m.wantDetail()
}

// markAll marks every device that the filter shows, or none.
func (m *model) markAll() {
	if len(m.marked) > 0 {
		clear(m.marked)
		return
	}
	for _, slot := range m.shown.slots {
		m.marked[slot] = struct{}{}
	}
}

func (m *model) filterKey(k tea.KeyPressMsg) tea.Cmd {
	switch k.String() {
	case "enter", "tab", "down":
		m.filtering = false
		return nil
	case "esc":
		m.filtering = false
		return m.setFilter("")
	}
	if m.filter.key(k) {
		return m.filterChanged()
	}
	return nil
}

func (m *model) setFilter(s string) tea.Cmd {
	m.filter.set(s)
	return m.filterChanged()
}

func (m *model) filterChanged() tea.Cmd {
	q := m.want
	q.terms = parseFilter(m.filter.String())
	if m.held == "" {
		m.cursor, m.top = 0, 0
	}
	return m.ask(q)
}

func (m *model) paste(text string) tea.Cmd {
	switch {
	case m.dialog != nil && m.dialog.asks:
		m.dialog.reason.insert(text)
	case m.filtering:
		m.filter.insert(text)
		return m.filterChanged()
	}
	return nil
}
