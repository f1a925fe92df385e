package tui

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
)

// Options is what a dashboard needs.
type Options struct {
	Source  Source
	Actions Actions
	Role    Role
	Title   string // of the header: the CLM's name, its site
	Now     func() time.Time
	Zone    *time.Location // of the times shown; nil: UTC

	In       io.Reader
	Out      io.Writer
	Environ  []string // TERM, COLORTERM and the like; nil: the process's
	NoColour bool     // NO_COLOR
	ASCII    bool     // the locale has no UTF-8

	// RunwayWarning and RunwayCritical colour the runway that is shorter; 0:
	// never.
	RunwayWarning, RunwayCritical time.Duration

	// Stop has the loop take no more devices. It is called, in a goroutine of
	// its own, when somebody leaves while devices are being worked on; the
	// dashboard ends when each of them is finished. nil: there is no loop.
	Stop func()
}

// Dashboard is the screen of clmctl watch. Its methods may be called from any
// goroutine, before, while and after it runs, and never block.
type Dashboard struct {
	o Options

	mu      sync.Mutex
	pending []tea.Msg
	wake    chan struct{}
}

// New returns a dashboard that does not run yet.
func New(o Options) *Dashboard {
	if o.Zone == nil {
		o.Zone = time.UTC
	}
	return &Dashboard{o: o, wake: make(chan struct{}, 1)}
}

// Run shows the dashboard until somebody leaves it (nil), the context ends (its
// error) or the terminal fails. The terminal is as it was before when it returns.
func (d *Dashboard) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	options := []tea.ProgramOption{tea.WithContext(ctx), tea.WithInput(d.o.In), tea.WithOutput(d.o.Out), tea.WithoutSignalHandler(), tea.WithFPS(20)}
	if d.o.Environ != nil {
		options = append(options, tea.WithEnvironment(d.o.Environ))
	}
	if d.o.NoColour {
		options = append(options, tea.WithColorProfile(colorprofile.ASCII))
	}
	p := tea.NewProgram(newModel(ctx, d.o), options...)
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.deliver(ctx, p)
	}()
	_, err := p.Run()
	ended := ctx.Err()
	cancel(nil)
	<-done
	switch {
	case err == nil:
		return nil
	case ended != nil && errors.Is(err, tea.ErrProgramKilled):
		return ended
	}
	return fmt.Errorf("dashboard: %w", err)
}

// deliver hands on what was posted, in order.
func (d *Dashboard) deliver(ctx context.Context, p *tea.Program) {
	for {
		d.mu.Lock()
		messages := d.pending
		d.pending = nil
		d.mu.Unlock()
		for _, m := range messages {
			p.Send(m)
		}
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
		}
	}
}

func (d *Dashboard) post(m tea.Msg) {
	d.mu.Lock()
	d.pending = append(d.pending, m)
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Started tells that the loop works on a device.
func (d *Dashboard) Started(device string) { d.post(startedWork(device)) }

// Finished tells that the loop is done with a device, however it ended.
func (d *Dashboard) Finished(device string) { d.post(finishedWork(device)) }

// Queued tells how many devices wait for their turn.
func (d *Dashboard) Queued(n int) { d.post(queuedWork(n)) }

// SetRole tells what this process does from now on.
func (d *Dashboard) SetRole(r Role) { d.post(roleChange(r)) }

// Remark shows a line to the operator for a while; bad: something failed.
func (d *Dashboard) Remark(text string, bad bool) { d.post(remark{text, bad}) }

// Leave ends the dashboard as q does.
func (d *Dashboard) Leave() { d.post(leave{}) }

// The messages of these methods.
type (
	startedWork  string
	finishedWork string
	queuedWork   int
	roleChange   Role
	remark       struct {
		text string
		bad  bool
	}
	leave struct{}
)

func (m *model) progress(msg tea.Msg) tea.Cmd {
	switch msg := msg.(type) {
	case startedWork:
		m.work[string(msg)] = m.now
	case finishedWork:
		if _, ok := m.work[string(msg)]; ok {
			delete(m.work, string(msg))
			m.done++
		}
		if m.leaving && len(m.work) == 0 {
			return m.end()
		}
	case queuedWork:
		m.queued = max(0, int(msg))
	case roleChange:
		before := m.role
		if m.role = Role(msg); m.role.Renewing && !before.Renewing {
			m.say("this process renews from now on", false)
		}
		if !m.role.Renewing {
			clear(m.work)
			m.queued = 0
		}
	case remark:
		m.say(msg.text, msg.bad)
	case leave:
		return m.leave()
	}
	return nil
}

// leave ends the dashboard: at once if nothing is being worked on, or if it is
// asked for twice.
func (m *model) leave() tea.Cmd {
	if m.leaving || len(m.work) == 0 {
		return m.end()
	}
	m.leaving, m.dialog, m.help = true, nil, false
	stop := m.o.Stop
	if stop == nil {
		return nil
	}
	return func() tea.Msg {
		stop()
		return nil
	}
}

func (m *model) end() tea.Cmd {
	m.gone = true
	return tea.Quit
}
