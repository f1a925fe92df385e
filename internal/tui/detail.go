package tui

import (
	"context"
	"time"

	tea "charm.land/bubbletea/v2"
)

// detailPane is what is known about the device under the cursor.
type detailPane struct {
	name  string // of the device that is asked for
	d     *Detail
	err   error
	busy  bool
	asked time.Time

	top   int
	lines []string // as drawn last, for scrolling
}

// Detail is read when the cursor has rested for a moment, and again from time
// to time.
const (
	detailRest  = 100 * time.Millisecond
	detailEvery = 10 * time.Second
)

// detailDue says that the cursor has rested.
type detailDue struct{ name string }

// detailRead is what was read.
type detailRead struct {
	name string
	d    Detail
	err  error
}

func (p *detailPane) scroll(n, visible int) {
	p.top = max(0, min(p.top+n, len(p.lines)-visible))
}

// wantDetail has the detail read if it shows and is of another device, or old.
func (m *model) wantDetail() tea.Cmd {
	i := m.selected()
	if i == nil || !m.layout().detail() {
		return nil
	}
	p := &m.detail
	if p.name != i.Name {
		*p = detailPane{name: i.Name}
	} else if p.busy || !p.asked.IsZero() && m.now.Sub(p.asked).Abs() < detailEvery {
		return nil
	}
	p.busy, p.asked = true, m.now
	name := p.name
	return tea.Tick(detailRest, func(time.Time) tea.Msg { return detailDue{name} })
}

func (m *model) detailMessage(msg tea.Msg) tea.Cmd {
	p := &m.detail
	switch msg := msg.(type) {
	case detailDue:
		if msg.name != p.name {
			return nil
		}
		src, base := m.o.Source, m.ctx
		return func() tea.Msg {
			ctx, cancel := context.WithTimeout(base, queryTime)
			defer cancel()
			d, err := src.Detail(ctx, msg.name)
			return detailRead{msg.name, d, err}
		}
	case detailRead:
		if msg.name != p.name {
			return nil
		}
		p.busy, p.err = false, msg.err
		if msg.err == nil {
			p.d = &msg.d
		}
	}
	return nil
}
