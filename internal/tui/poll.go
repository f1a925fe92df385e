package tui

import (
	"context"
	"reflect"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

// reading is something that is read again and again.
type reading uint8

const (
	readCensus reading = iota
	readEvents
	readCAs
	readBars
	readings
)

// every is how often.
func (r reading) every() time.Duration {
	switch r {
	case readEvents:
		return time.Second
	case readCAs:
		return 2 * time.Second
	case readBars:
		return 30 * time.Second
	default:
		return 3 * time.Second
	}
}

// read is how far a reading is.
type read struct {
	busy  bool
	began time.Time
	good  time.Time // when it last succeeded
	err   error     // of the last one
}

// answer is what a reading gave.
type answer struct {
	of    reading
	value any
	err   error
}

// bars are the renewals of the next hours.
type bars struct {
	from time.Time
	step time.Duration
	n    []int
}

// barCount is how many steps are shown.
const barCount = 24

// newest is what the events brought: the rows of the devices that they are of
// were read again.
type newest struct {
	first   bool // there was nothing before
	last    int64
	entries []renewal.Entry
	items   []*item
	named   []string
}

const (
	eventsAtOnce = 500 // of one reading
	eventsKept   = 1000
	eventsAtOpen = 200
)

// poll begins the readings whose time has come.
func (m *model) poll(all bool) tea.Cmd {
	var cmds []tea.Cmd
	for of := range readings {
		r := &m.reads[of]
		if r.busy || !all && m.now.Sub(r.began) < of.every() && !m.now.Before(r.began) {
			continue
		}
		r.busy, r.began = true, m.now
		cmds = append(cmds, m.reading(of))
	}
	return tea.Batch(cmds...)
}

func (m *model) reading(of reading) tea.Cmd {
	src, base, plain := m.o.Source, m.ctx, m.o.ASCII
	var fn func(ctx context.Context) (any, error)
	switch of {
	case readCensus:
		fn = func(ctx context.Context) (any, error) { return src.Census(ctx) }
	case readCAs:
		fn = func(ctx context.Context) (any, error) { return src.CAs(ctx) }
	case readBars:
		b := bars{step: m.barStep()}
		b.from = m.now.Truncate(b.step)
		fn = func(ctx context.Context) (any, error) {
			var err error
			b.n, err = src.Renewals(ctx, b.from, b.step, barCount)
			return b, err
		}
	default:
		after, started := m.lastEntry, m.started
		fn = func(ctx context.Context) (any, error) { return readNewest(ctx, src, after, started, plain) }
	}
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(base, queryTime)
		defer cancel()
		value, err := fn(ctx)
		return answer{of, value, err}
	}
}

// barStep is an hour, and less where certificates live for less than a day.
func (m *model) barStep() time.Duration {
	c := m.census
	if c.FirstExpiry.IsZero() || c.At.IsZero() {
		return time.Hour
	}
	switch left := c.FirstExpiry.Sub(c.At); {
	case left <= 0 || left > 2*time.Hour:
		return time.Hour
	case left > 15*time.Minute:
		return 5 * time.Minute
	}
	return 30 * time.Second
}

func readNewest(ctx context.Context, src Source, after int64, started, plain bool) (newest, error) {
	out := newest{first: !started, last: after}
	if !started {
		last, err := src.LastEntry(ctx)
		if err != nil {
			return out, err
		}
		after = max(0, last-eventsAtOpen)
		out.last = last
	}
	entries, err := src.Entries(ctx, after, eventsAtOnce)
	if err != nil {
		return out, err
	}
	out.entries = entries
	seen := map[string]bool{}
	for _, e := range entries {
		out.last = max(out.last, e.ID)
		if e.Device != "" && !seen[e.Device] {
			seen[e.Device] = true
			out.named = append(out.named, e.Device)
		}
	}
	if out.first || len(out.named) == 0 {
		return out, nil
	}
	rows, err := src.RowsOf(ctx, out.named)
	out.items = newItems(rows, plain)
	return out, err
}

func (m *model) answered(a answer) tea.Cmd {
	r := &m.reads[a.of]
	m.same = r.err == nil && a.err == nil && !r.good.IsZero() && m.shows(a.value)
	r.busy, r.err = false, a.err
	if a.err != nil {
		return nil
	}
	r.good = m.now
	switch v := a.value.(type) {
	case renewal.Census:
		old := m.barStep()
		if m.census = v; m.barStep() != old {
			m.reads[readBars].began = time.Time{}
		}
	case []enrol.Breaker:
		m.cas = v
	case bars:
		m.bars = v
	case newest:
		return m.happened(v)
	}
	return nil
}

// shows reports whether what was read is on the screen already, as it mostly is.
func (m *model) shows(value any) bool {
	switch v := value.(type) {
	case renewal.Census:
		v.At = m.census.At
		return v == m.census
	case []enrol.Breaker:
		return reflect.DeepEqual(v, m.cas)
	case bars:
		return reflect.DeepEqual(v, m.bars)
	case newest:
		return len(v.entries) == 0
	}
	return false
}

// happened takes in new events.
func (m *model) happened(n newest) tea.Cmd {
	m.lastEntry, m.started = n.last, true
	if len(n.entries) == 0 {
		return nil
	}
	m.events = append(m.events, n.entries...)
	if extra := len(m.events) - eventsKept; extra > 0 {
		m.events = append([]renewal.Entry(nil), m.events[extra:]...)
	}
	if m.eventsUp > 0 {
		m.eventsUp += len(n.entries) // what is being read stays where it is
	}
	if n.first {
		return nil
	}
	m.patch(n.named, n.items)
	m.reads[readCensus].began = time.Time{}
	var cmds []tea.Cmd
	if len(n.entries) == eventsAtOnce {
		m.reads[readEvents].busy = true
		cmds = append(cmds, m.reading(readEvents))
	}
	m.dirty = true
	cmds = append(cmds, m.tidy())
	for _, name := range n.named {
		if name == m.detail.name {
			m.detail.asked = time.Time{}
		}
	}
	cmds = append(cmds, m.wantDetail())
	return tea.Batch(cmds...)
}

// arrangeGap is how long the order of the table may lag behind its rows, which
// show at once: sorting is to take no more than a hundredth of a core.
func (m *model) arrangeGap() time.Duration {
	return max(time.Second, min(100*m.shown.took, arrangeMost))
}

// tidy puts the table in order again if it is time to.
func (m *model) tidy() tea.Cmd {
	age := m.now.Sub(m.shown.at)
	if m.arranger != nil || age >= 0 && age < m.arrangeGap() {
		return nil
	}
	idle := max(arrangeEvery, min(500*m.shown.took, 3*arrangeMost))
	if m.dirty || age < 0 || age >= idle && !m.now.Before(m.shown.until) {
		return m.arrange(false)
	}
	return nil
}

// patch takes in rows that were read again; a device that has none is gone.
func (m *model) patch(named []string, items []*item) {
	have := make(map[string]bool, len(items))
	for _, i := range items {
		have[i.Name] = true
	}
	into := []*register{m.rows}
	if m.fill != nil && m.fill.into != m.rows {
		into = append(into, m.fill.into)
	}
	for _, r := range into {
		r.put(items)
		for _, name := range named {
			if !have[name] {
				r.drop(name)
			}
		}
	}
}

// stale returns what is to be said about the age of what is shown; "" while it
// is fresh.
func (m *model) stale() string {
	oldest, err := m.now, error(nil)
	for _, of := range []reading{readCensus, readEvents} {
		r := m.reads[of]
		if r.err != nil {
			err = r.err
		}
		if r.good.IsZero() {
			if r.err == nil {
				continue // being read for the first time
			}
			oldest = time.Time{}
		} else if r.good.Before(oldest) {
			oldest = r.good
		}
	}
	if err == nil {
		err = m.loadErr
	}
	age := m.now.Sub(oldest)
	switch {
	case err != nil && (oldest.IsZero() || age < staleAfter):
		return "inventory not readable: " + clean(err.Error(), m.o.ASCII)
	case err != nil:
		return "data " + span(age) + " old: inventory not readable: " + clean(err.Error(), m.o.ASCII)
	case age >= staleAfter && !oldest.IsZero():
		return "data " + span(age) + " old"
	}
	return ""
}

// staleAfter is the age from which data is called old.
const staleAfter = 10 * time.Second
