package tui

import (
	"context"
	"slices"
	"time"

	tea "charm.land/bubbletea/v2"
)

// Rows of a page: the first one is small, so that something shows at once.
const (
	firstPage = 200
	laterPage = 5000
)

// queryTime bounds a read of the inventory.
const queryTime = 20 * time.Second

// retryAfter is how long after a failed read of a page the next try comes.
const retryAfter = 3 * time.Second

// arrangeEvery is how often the table is put in order again for time alone at
// most, arrangeMost how often it is for rows that change all the time at least.
const (
	arrangeEvery = 5 * time.Second
	arrangeMost  = 10 * time.Second
)

// filling is a pass over all rows.
type filling struct {
	into   *register // shown already, unless there are other rows to show meanwhile
	after  string
	busy   bool
	failed time.Time
}

func (f *filling) retry(now time.Time) bool {
	return !f.busy && now.Sub(f.failed) >= retryAfter
}

// page is the next rows.
type page struct {
	of    *filling
	items []*item
	limit int
	err   error
}

// reload reads all rows anew; those that are known stay until all are there.
func (m *model) reload() tea.Cmd {
	m.fill = &filling{into: newRegister()}
	if m.rows.len() == 0 {
		m.fill.into = m.rows
	}
	return m.readPage()
}

func (m *model) readPage() tea.Cmd {
	f, o, ctx := m.fill, m.o, m.ctx
	f.busy = true
	after, limit := f.after, laterPage
	if after == "" {
		limit = firstPage
	}
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(ctx, queryTime)
		defer cancel()
		rows, err := o.Source.Rows(ctx, after, limit)
		return page{of: f, items: newItems(rows, o.ASCII), limit: limit, err: err}
	}
}

func (m *model) page(p page) tea.Cmd {
	if p.of != m.fill {
		return nil
	}
	f := m.fill
	f.busy = false
	if m.loadErr = p.err; p.err != nil {
		f.failed = m.now
		return nil
	}
	first := f.after == ""
	f.into.put(p.items)
	if n := len(p.items); n > 0 {
		f.after = p.items[n-1].Name
	}
	if len(p.items) < p.limit {
		m.fill = nil
		m.replace(f.into)
		return m.arrange(true)
	}
	cmds := []tea.Cmd{m.readPage()}
	if f.into == m.rows {
		if m.dirty = true; first {
			cmds = append(cmds, m.arrange(false))
		}
		cmds = append(cmds, m.tidy())
	}
	return tea.Batch(cmds...)
}

// replace shows other rows; marks stay on the devices that they were on.
func (m *model) replace(next *register) {
	if next == m.rows {
		return
	}
	marked := map[int32]struct{}{}
	for slot := range m.marked {
		if i := m.rows.at(slot); i != nil {
			if to, ok := next.index[i.Name]; ok {
				marked[to] = struct{}{}
			}
		}
	}
	if m.held == "" && m.cursor > 0 {
		m.hold()
	}
	// Slots mean something else now: what is shown goes on under the new ones.
	moved := func(old []int32) []int32 {
		slots := make([]int32, 0, len(old))
		for _, slot := range old {
			if i := m.rows.at(slot); i != nil {
				if to, ok := next.index[i.Name]; ok {
					slots = append(slots, to)
				}
			}
		}
		return slots
	}
	m.shown.all, m.shown.slots = moved(m.shown.all), moved(m.shown.slots)
	m.rows, m.marked = next, marked
}

// arranged is an answer of a goroutine.
type arranged struct {
	arrangement
	seq int
}

// arrange has the table put in order. Unless anew, one that is under way is
// left to finish, and followed by another.
func (m *model) arrange(anew bool) tea.Cmd {
	if m.arranger != nil {
		if !anew {
			m.again = true
			return nil
		}
		m.arranger()
	}
	return m.launch(false)
}

// launch answers the query; sorted: by the order of all devices that is there.
func (m *model) launch(sorted bool) tea.Cmd {
	ctx, cancel := context.WithCancel(m.ctx)
	m.arranger, m.sorting, m.again = cancel, !sorted, false
	if !sorted {
		m.dirty = false
	}
	m.seq++
	seq, rows, earlier, q, clock := m.seq, m.rows.lend(), slices.Clip(m.shown.all), m.want, m.o.Now
	return func() tea.Msg {
		defer cancel()
		now := clock()
		a, ok := arrange(ctx, rows, earlier, sorted, q, now)
		if !ok {
			return nil
		}
		a.took = clock().Sub(now)
		return arranged{a, seq}
	}
}

func (m *model) arranged(a arranged) tea.Cmd {
	if a.seq != m.seq {
		return nil
	}
	m.arranger = nil
	m.shown = a.arrangement
	m.seek()
	cmds := []tea.Cmd{m.wantDetail()}
	if m.again {
		cmds = append(cmds, m.arrange(false))
	}
	return tea.Batch(cmds...)
}

// ask changes what the table shows.
func (m *model) ask(q query) tea.Cmd {
	m.want = q
	a := m.shown
	if m.arranger != nil && !m.sorting {
		m.arranger()
		m.arranger = nil
	}
	inOrder := a.all != nil && a.by == q.by && a.reverse == q.reverse && m.now.Before(a.until)
	if inOrder && m.arranger == nil && !m.dirty && m.fill == nil {
		return m.launch(true)
	}
	return m.arrange(true)
}

// hold keeps the cursor on the device that it is on, whatever moves.
func (m *model) hold() {
	m.held = ""
	if i := m.selected(); i != nil {
		m.held = i.Name
	}
}

// seek puts the cursor on the device that it is to stay on.
func (m *model) seek() {
	slot, ok := m.rows.index[m.held]
	if m.held == "" || !ok {
		return
	}
	if at := slices.Index(m.shown.slots, slot); at >= 0 {
		m.top += at - m.cursor // the same line of the screen
		m.cursor = at
	}
}
