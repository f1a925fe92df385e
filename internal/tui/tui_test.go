package tui

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"pgregory.net/rapid"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

var update = flag.Bool("update", false, "write the golden files")

var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

// plant is an inventory in memory.
type plant struct {
	mu      sync.Mutex
	rows    []renewal.Row
	census  renewal.Census
	entries []renewal.Entry
	cas     []enrol.Breaker
	err     error
}

func (p *plant) Census(context.Context) (renewal.Census, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.census, p.err
}

func (p *plant) Rows(_ context.Context, after string, limit int) ([]renewal.Row, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	from, found := slices.BinarySearchFunc(p.rows, after, func(r renewal.Row, s string) int { return strings.Compare(r.Name, s) })
	if found {
		from++
	}
	return slices.Clone(p.rows[from:min(from+limit, len(p.rows))]), p.err
}

func (p *plant) RowsOf(_ context.Context, names []string) ([]renewal.Row, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []renewal.Row
	for _, r := range p.rows {
		if slices.Contains(names, r.Name) {
			out = append(out, r)
		}
	}
	return out, p.err
}

func (p *plant) Entries(_ context.Context, after int64, limit int) ([]renewal.Entry, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []renewal.Entry
	for _, e := range p.entries {
		if e.ID > after && len(out) < limit {
			out = append(out, e)
		}
	}
	return out, p.err
}

func (p *plant) LastEntry(context.Context) (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.entries) == 0 {
		return 0, p.err
	}
	return p.entries[len(p.entries)-1].ID, p.err
}

func (p *plant) Renewals(_ context.Context, _ time.Time, _ time.Duration, n int) ([]int, error) {
	out := make([]int, n)
	for i := range out {
		out[i] = (i*i*7 + 3*i) % 31 * 10
	}
	if len(p.rows) == 0 {
		clear(out)
	}
	return out, p.err
}

func (p *plant) CAs(context.Context) ([]enrol.Breaker, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cas, p.err
}

func (p *plant) Detail(_ context.Context, name string) (Detail, error) {
	for _, r := range p.rows {
		if r.Name == name {
			return detailOf(r), p.err
		}
	}
	return Detail{}, enrol.ErrNotFound
}

func detailOf(r renewal.Row) Detail {
	d := Detail{Device: fleet.Device{
		Name: r.Name, Address: r.Address, Labels: r.Labels, LastError: r.LastError,
		Identity: ibc.Identity{Role: ibc.RoleDevice, Name: r.Name, Epoch: 1, Generation: 1},
	}}
	if !r.NotAfter.IsZero() {
		d.Device.EnrolledAt = r.NotBefore.Add(time.Minute)
		d.Device.Certificate = &fleet.Certificate{
			Serial: "4fa29c01", Subject: "CN=" + r.Name, Issuer: "CN=Plant CA 1,O=Example", NotBefore: r.NotBefore, NotAfter: r.NotAfter,
		}
		d.Enrolments = []*enrol.Enrolment{{State: enrol.Completed, CreatedAt: d.Device.EnrolledAt, Steps: enrol.Steps{
			CSRRequest: 71 * time.Millisecond, KeyAndCSR: 27 * time.Millisecond, Enrolment: 110 * time.Millisecond,
			VerifyRequest: 80 * time.Millisecond, Verification: 60 * time.Millisecond,
		}}}
	}
	if r.LastError != "" {
		d.Events = append(d.Events, enrol.Event{
			At: noon.Add(-4 * time.Minute), Device: r.Name, State: enrol.Requested, Kind: enrol.EventRetry,
			Class: enrol.ClassUnreachable, By: enrol.PartyDevice, Message: r.LastError,
		})
	}
	d.Events = append(d.Events, enrol.Event{At: r.NotBefore.Add(time.Minute), Device: r.Name, State: enrol.Completed, Kind: enrol.EventCompleted, Message: "certificate 4fa29c01 is active"})
	return d
}

// newPlant has devices of each kind.
func newPlant(n int) *plant {
	p := &plant{cas: []enrol.Breaker{
		{CA: "plant-ca", State: enrol.BreakerClosed, Latency: 24 * time.Millisecond, LastSuccess: noon.Add(-12 * time.Second)},
		{CA: "standby-ca", State: enrol.BreakerClosed},
	}}
	for i := range n {
		r := renewal.Row{
			Name: fmt.Sprintf("plc-%06d.bilbao", i), Address: fmt.Sprintf("10.3.%d.%d:5684", i/250%250, i%250+1),
			Labels:    map[string]string{"line": fmt.Sprint(i%7 + 1), "cell": string(rune('a' + i%4))},
			NotBefore: noon.Add(-time.Duration(20+i%10) * time.Hour), RenewAt: noon.Add(time.Duration(i%40+1) * time.Hour),
			NotAfter: noon.Add(time.Duration(40+i%60) * time.Hour),
		}
		switch {
		case i%50 == 7:
			r.RenewAt = noon.Add(-time.Minute)
		case i%50 == 13:
			r.RenewAt, r.NextAttempt = noon.Add(-time.Hour), noon.Add(7*time.Minute)
			r.LastError, r.Attempts = "request a CSR: connect to "+r.Name+": device unreachable: no answer from "+r.Address+" within 10 s", 1
		case i%100 == 21:
			r.NotAfter, r.LastError = noon.Add(-3*time.Hour), "identity refused: the device proves edgeclm/v1/dev/plc-9/e1.g1"
		case i%100 == 33:
			r.Quarantined, r.Attempts, r.LastError = true, 5, "the CA rejected the request: badRequest (name not allowed)"
		case i%100 == 41:
			r.Paused = true
		case i%100 == 55:
			r.NotBefore, r.NotAfter, r.RenewAt = time.Time{}, time.Time{}, time.Time{}
		}
		p.rows = append(p.rows, r)
		if len(p.entries) < 20 {
			p.entries = append(p.entries, renewal.Entry{ID: int64(i + 1), Event: enrol.Event{
				At: noon.Add(time.Duration(i-20) * time.Second), Device: r.Name, State: enrol.Completed, Kind: enrol.EventCompleted,
				Message: "certificate 4fa29c01 is active until 2026-12-01T12:00:00Z", Took: 348 * time.Millisecond,
			}})
		}
	}
	p.count()
	return p
}

func (p *plant) count() {
	c := renewal.Census{At: noon, Total: len(p.rows), LastSuccess: noon.Add(-12 * time.Second)}
	for _, r := range p.rows {
		for s, n := range map[status]*int{operational: &c.Operational, due: &c.Due, failing: &c.Failing, expired: &c.Expired, quarantined: &c.Quarantined, paused: &c.Paused} {
			if is(&r, s, noon) {
				*n++
			}
		}
		if r.NotAfter.After(noon) && (c.FirstExpiry.IsZero() || r.NotAfter.Before(c.FirstExpiry)) {
			c.FirstExpiry, c.FirstExpiring = r.NotAfter, r.Name
		}
	}
	p.census = c
}

func options(p *plant) Options {
	act := func(context.Context, []string, string) error { return nil }
	return Options{
		Source: p, Actions: Actions{act, act, act, act}, Role: Role{Renewing: true}, Title: "clm-1", Zone: time.UTC,
		Now:           func() time.Time { return noon },
		RunwayWarning: 24 * time.Hour, RunwayCritical: 4 * time.Hour,
	}
}

// screenOf is a model with all that it asked for at once.
func screenOf(t testing.TB, o Options, w, h int) *model {
	t.Helper()
	m := newModel(t.Context(), o)
	feed(t, m, tea.WindowSizeMsg{Width: w, Height: h})
	run(t, m, tea.Batch(m.reload(), m.poll(true)))
	return m
}

func feed(t testing.TB, m *model, msg tea.Msg) {
	_, cmd := m.Update(msg)
	run(t, m, cmd)
}

// run carries out a command and feeds what comes of it; the clock stands still.
func run(t testing.TB, m *model, cmd tea.Cmd) {
	if cmd == nil {
		return
	}
	switch msg := cmd().(type) {
	case nil:
	case tea.BatchMsg:
		for _, c := range msg {
			run(t, m, c)
		}
	case tea.QuitMsg, ticked:
	default:
		feed(t, m, msg)
	}
}

func press(t testing.TB, m *model, keys ...string) {
	for _, k := range keys {
		feed(t, m, keyOf(k))
	}
}

func keyOf(k string) tea.KeyPressMsg {
	special := map[string]rune{"enter": tea.KeyEnter, "esc": tea.KeyEscape, "tab": tea.KeyTab, "up": tea.KeyUp, "down": tea.KeyDown,
		"pgdown": tea.KeyPgDown, "pgup": tea.KeyPgUp, "home": tea.KeyHome, "end": tea.KeyEnd, "backspace": tea.KeyBackspace}
	if c, ok := special[k]; ok {
		return tea.KeyPressMsg{Code: c}
	}
	if k == "space" {
		return tea.KeyPressMsg{Code: tea.KeySpace, Text: " "}
	}
	return tea.KeyPressMsg{Code: firstRune(k), Text: k}
}

func typed(t testing.TB, m *model, s string) {
	for _, r := range s {
		if r == ' ' {
			press(t, m, "space")
			continue
		}
		press(t, m, string(r))
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	var lines []string
	for l := range strings.SplitSeq(got, "\n") {
		lines = append(lines, strings.TrimRight(l, " "))
	}
	got = strings.Join(lines, "\n") + "\n"
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it):\n%s\nwant:\n%s", path, got, want)
	}
}

func TestViews(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name  string
		setup func(p *plant, o *Options)
		do    func(t *testing.T, m *model)
	}{
		{"table", nil, nil},
		{"detail", nil, func(t *testing.T, m *model) { typed(t, m, "3"); press(t, m, "enter") }},
		{"help", nil, func(t *testing.T, m *model) { press(t, m, "?") }},
		{"filter", nil, func(t *testing.T, m *model) { press(t, m, "/"); typed(t, m, "line=3 state:due") }},
		{"confirm", nil, func(t *testing.T, m *model) { press(t, m, "5", "space", "0", "j", "p") }},
		{"reason", nil, func(t *testing.T, m *model) {
			press(t, m, "5", "x")
			typed(t, m, "template fixed")
			press(t, m, "enter")
		}},
		{"events", nil, func(_ *testing.T, m *model) { yes := true; m.eventsAsk = &yes; m.settle() }},
		{"working", nil, func(t *testing.T, m *model) {
			feed(t, m, startedWork("plc-000033.bilbao"))
			feed(t, m, queuedWork(14))
			press(t, m, "q")
		}},
		{"empty", func(p *plant, _ *Options) { *p = plant{census: renewal.Census{At: noon}} }, nil},
		{"cadown", func(p *plant, _ *Options) {
			p.cas[0] = enrol.Breaker{CA: "plant-ca", State: enrol.BreakerOpen, Until: noon.Add(4 * time.Minute), Class: enrol.ClassCAUnavail, LastError: "CA unavailable: connection refused", LastFailure: noon}
		}, nil},
		{"viewing", func(_ *plant, o *Options) { o.Role = Role{Why: "process 4711 renews since 08:00"} }, nil},
		{"nocolour", func(_ *plant, o *Options) { o.NoColour = true }, nil},
		{"ascii", func(_ *plant, o *Options) { o.ASCII = true }, nil},
		{"unreadable", nil, func(t *testing.T, m *model) {
			m.o.Source.(*plant).err = errors.New("database is locked")
			m.now = noon.Add(35 * time.Second)
			run(t, m, m.poll(true))
		}},
	}
	for _, c := range cases {
		for _, size := range [][2]int{{80, 24}, {160, 50}} {
			t.Run(fmt.Sprintf("%s-%dx%d", c.name, size[0], size[1]), func(t *testing.T) {
				t.Parallel()
				p := newPlant(1200)
				o := options(p)
				if c.setup != nil {
					c.setup(p, &o)
				}
				m := screenOf(t, o, size[0], size[1])
				if c.do != nil {
					c.do(t, m)
				}
				s := m.View().Content
				checkScreen(t, s, size[0], size[1])
				if c.name == "nocolour" {
					if strings.Contains(s, "38;") || strings.Contains(s, "48;") {
						t.Error("a colour in spite of NO_COLOR")
					}
				}
				if c.name == "ascii" && !printable(strings.ReplaceAll(ansi.Strip(s), "\n", "")) {
					t.Error("more than ASCII")
				}
				golden(t, fmt.Sprintf("%s-%dx%d", c.name, size[0], size[1]), ansi.Strip(s))
			})
		}
	}
}

// checkScreen holds a view to its size, and to styles as its only sequences.
func checkScreen(t interface{ Errorf(string, ...any) }, s string, w, h int) {
	lines := strings.Split(s, "\n")
	if len(lines) != h {
		t.Errorf("%d lines, the screen has %d", len(lines), h)
	}
	for i, l := range lines {
		if n := ansi.StringWidth(l); n != w {
			t.Errorf("line %d has %d columns of %d: %q", i, n, w, l)
		}
		rest := l
		for {
			at := strings.IndexByte(rest, 0x1b)
			if at < 0 {
				break
			}
			end := strings.IndexByte(rest[at:], 'm')
			if end < 0 || strings.Trim(rest[at:at+end], "\x1b[;0123456789") != "" {
				t.Errorf("line %d has a foreign sequence: %q", i, l)
				break
			}
			rest = rest[at+end+1:]
		}
	}
}

// TestAnyKeyAnySize: no size, key or text breaks a view.
func TestAnyKeyAnySize(t *testing.T) {
	t.Parallel()
	keys := []string{"j", "k", "g", "G", "pgdown", "pgup", "enter", "esc", "tab", "e", "s", "S", "/", "?", "r", "p", "x", "y", "n", "space", "*", "a", "=", ":", "3", "5", "backspace", "up", "down", "世", "h", "l"}
	rapid.Check(t, func(rt *rapid.T) {
		p := newPlant(rapid.IntRange(0, 120).Draw(rt, "devices"))
		text := rapid.OneOf(rapid.String(), rapid.Just("\x1b[2J\x1b]0;x\a\u202e世界 🏳️‍🌈 e\u0301\u0301\u0301\u0301\x9b31m"))
		for i := range p.rows {
			if i%3 == 0 {
				p.rows[i].LastError = text.Draw(rt, "error")
				p.rows[i].Labels = map[string]string{"k": text.Draw(rt, "label")}
			}
		}
		p.count()
		o := options(p)
		o.NoColour, o.ASCII = rapid.Bool().Draw(rt, "plain"), rapid.Bool().Draw(rt, "ascii")
		w, h := rapid.IntRange(1, 200).Draw(rt, "w"), rapid.IntRange(1, 70).Draw(rt, "h")
		m := screenOf(t, o, w, h)
		for range rapid.IntRange(0, 12).Draw(rt, "steps") {
			if rapid.IntRange(0, 5).Draw(rt, "resize") == 0 {
				w, h = rapid.IntRange(1, 200).Draw(rt, "w"), rapid.IntRange(1, 70).Draw(rt, "h")
				_, _ = m.Update(tea.WindowSizeMsg{Width: w, Height: h})
			} else {
				_, cmd := m.Update(keyOf(rapid.SampledFrom(keys).Draw(rt, "key")))
				_ = cmd
			}
			checkScreen(rt, m.View().Content, w, h)
		}
	})
}

func TestLine(t *testing.T) {
	t.Parallel()
	got := Line(renewal.Entry{Event: enrol.Event{
		At: noon, Device: "plc-1", Kind: enrol.EventRetry, State: enrol.Requested, Class: enrol.ClassUnreachable,
		Message: "no answer\n\x1b[31mnow\x9b2J", Took: 1500 * time.Millisecond,
	}})
	want := "2026-11-29T12:00:00Z  plc-1  retry  requested  unreachable: no answer [31mnow?2J  (1.5 s)"
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func BenchmarkKey(b *testing.B) {
	m := screenOf(b, options(newPlant(100_000)), 160, 50)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		key := "pgdown"
		if i%50 == 49 {
			key = "g"
		}
		_, _ = m.Update(keyOf(key))
		_ = m.View()
	}
}

func BenchmarkFilterKeystroke(b *testing.B) {
	m := screenOf(b, options(newPlant(100_000)), 160, 50)
	press(b, m, "/")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		key := "7"
		if i%2 == 1 {
			key = "backspace"
		}
		press(b, m, key)
		_ = m.View()
	}
}

func firstRune(s string) rune {
	r, _ := utf8.DecodeRuneInString(s)
	return r
}
