package tui

import (
	"context"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

// Smallest screen on which there is a table at all, and the sizes from which
// there is room for more.
const (
	minWidth, minHeight   = 24, 5
	wideWidth, tallHeight = 130, 30 // the large header
	sideWidth, sideHeight = 130, 20 // the detail stands beside the table
	openEvents            = 40      // lines from which events are shown unasked
)

// focus is which pane the keys move in.
type focus uint8

const (
	onTable focus = iota
	onDetail
	onEvents
)

// model is the state of the dashboard. It changes in Update alone.
type model struct {
	o     Options
	ctx   context.Context
	theme theme
	dark  bool
	now   time.Time
	w, h  int

	rows    *register
	fill    *filling // rows being read, nil: all are here
	loadErr error

	shown    arrangement
	want     query
	arranger func() // ends the arrangement that is being made; nil: none is
	sorting  bool   // it puts all devices in order anew
	again    bool   // rows have changed since it began
	dirty    bool   // rows have changed since the table was put in order
	seq      int    // of the arrangement that is wanted

	cursor, top int
	held        string // the device that the cursor stays on; "": the cursor stays where it is
	marked      map[int32]struct{}

	reads  [readings]read
	census renewal.Census
	cas    []enrol.Breaker
	bars   bars

	lastEntry int64
	started   bool // lastEntry is known
	events    []renewal.Entry
	eventsUp  int // lines that the events pane is scrolled back

	work    map[string]time.Time // being worked on, since when
	queued  int
	done    int // devices that were finished since the start
	role    Role
	leaving bool
	gone    bool

	focus      focus
	open       bool // the detail, where it does not stand beside the table
	eventsAsk  *bool
	help       bool
	detail     detailPane
	filter     field
	filtering  bool
	dialog     *dialog
	drawn      string // the screen as it is; "": something on it has changed
	same       bool   // the message that is being answered changes nothing on it
	notice     string
	noticeBad  bool
	noticeTill time.Time
}

func newModel(ctx context.Context, o Options) *model {
	m := &model{
		o: o, ctx: ctx, now: o.Now(), dark: true, rows: newRegister(), role: o.Role,
		marked: map[int32]struct{}{}, work: map[string]time.Time{},
	}
	m.restyle()
	return m
}

func (m *model) restyle() { m.theme = newTheme(m.dark, !m.o.NoColour, m.o.ASCII) }

// Init implements tea.Model.
func (m *model) Init() tea.Cmd {
	return tea.Batch(tea.RequestBackgroundColor, m.tick(), m.reload(), m.poll(true))
}

// ticked is the clock.
type ticked struct{ at time.Time }

const tickEvery = time.Second

func (m *model) tick() tea.Cmd {
	now := m.o.Now
	return tea.Tick(tickEvery, func(time.Time) tea.Msg { return ticked{now()} })
}

// Update implements tea.Model.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	m.same = false
	cmd := m.update(msg)
	m.settle()
	if !m.same {
		m.drawn = ""
	}
	return m, cmd
}

func (m *model) update(msg tea.Msg) tea.Cmd {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.w, m.h = msg.Width, msg.Height
		// It may be another terminal, which tmux was attached to.
		return tea.Batch(tea.RequestBackgroundColor, m.wantDetail())
	case tea.BackgroundColorMsg:
		m.dark = msg.IsDark()
		m.restyle()
	case tea.KeyPressMsg:
		return m.key(msg)
	case tea.PasteMsg:
		return m.paste(msg.Content)
	case ticked:
		return m.ticked(msg.at)
	case page:
		return m.page(msg)
	case arranged:
		return m.arranged(msg)
	case answer:
		return m.answered(msg)
	case detailDue, detailRead:
		return m.detailMessage(msg)
	case acted:
		return m.acted(msg)
	case startedWork, finishedWork, queuedWork, roleChange, leave, remark:
		return m.progress(msg)
	}
	return nil
}

// ticked moves the clock, and reads again what has become old.
func (m *model) ticked(at time.Time) tea.Cmd {
	m.now = at
	if !m.noticeTill.IsZero() && at.After(m.noticeTill) {
		m.notice, m.noticeTill = "", time.Time{}
	}
	cmds := []tea.Cmd{m.tick(), m.poll(false)}
	if m.fill != nil && m.fill.retry(at) {
		cmds = append(cmds, m.readPage())
	}
	cmds = append(cmds, m.tidy(), m.wantDetail())
	return tea.Batch(cmds...)
}

// say shows a line to the operator for a while.
func (m *model) say(text string, bad bool) {
	m.notice, m.noticeBad, m.noticeTill = clean(text, m.o.ASCII), bad, m.now.Add(10*time.Second)
	if bad {
		m.noticeTill = m.now.Add(time.Minute)
	}
}

// settle keeps cursor and scrolling within what there is.
func (m *model) settle() {
	n := len(m.shown.slots)
	m.cursor = max(0, min(m.cursor, n-1))
	visible := max(1, m.layout().tableRows)
	m.top = min(m.top, m.cursor)
	m.top = max(m.top, m.cursor-visible+1)
	m.top = max(0, min(m.top, n-visible))
	l := m.layout()
	if m.focus == onEvents && l.eventLines == 0 || m.focus == onDetail && !l.detail() {
		m.focus = onTable
	}
	m.eventsUp = max(0, min(m.eventsUp, len(m.events)-l.eventLines))
}

// selected is the device under the cursor; nil if there is none.
func (m *model) selected() *item {
	if m.cursor < 0 || m.cursor >= len(m.shown.slots) {
		return nil
	}
	return m.rows.at(m.shown.slots[m.cursor])
}

// View implements tea.Model.
func (m *model) View() tea.View {
	if m.drawn == "" {
		m.drawn = m.screen()
	}
	v := tea.NewView(m.drawn)
	v.AltScreen = true
	v.WindowTitle = m.windowTitle()
	return v
}

func (m *model) windowTitle() string {
	switch c := m.census; {
	case c.At.IsZero():
		return "clmctl watch"
	case c.Expired > 0:
		return "clmctl: " + count(c.Expired) + " expired"
	case c.Failing > 0:
		return "clmctl: " + count(c.Failing) + " failing"
	default:
		return "clmctl: " + count(c.Operational) + " operational"
	}
}
