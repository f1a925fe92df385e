package tui

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

// TestActionsAreConfirmed: nothing happens without a reason and a y.
func TestActionsAreConfirmed(t *testing.T) {
	t.Parallel()
	o := options(newPlant(200))
	var got []string
	reason := ""
	o.Actions.Release = func(_ context.Context, names []string, why string) error {
		got, reason = names, why
		return nil
	}
	m := screenOf(t, o, 80, 24)
	press(t, m, "5", "x", "enter", "y")
	if got != nil || m.dialog == nil || m.dialog.reason.String() != "y" {
		t.Fatalf("released %v without a reason", got)
	}
	press(t, m, "enter", "n")
	if got != nil || m.dialog != nil {
		t.Fatalf("released %v after a no", got)
	}
	press(t, m, "*", "x", "o", "k", "enter", "y")
	if want := []string{"plc-000033.bilbao", "plc-000133.bilbao"}; !reflect.DeepEqual(got, want) || reason != "ok" {
		t.Errorf("released %v for %q, want %v", got, reason, want)
	}
	m = screenOf(t, options(newPlant(200)), 80, 24)
	feed(t, m, roleChange{ReadOnly: true})
	if press(t, m, "p"); m.dialog != nil || m.notice == "" {
		t.Error("a dashboard that only shows offers an action")
	}
}

// TestEventsBringRows: what an event names is read again, and shows at once.
func TestEventsBringRows(t *testing.T) {
	t.Parallel()
	p := newPlant(200)
	m := screenOf(t, options(p), 80, 24)
	p.mu.Lock()
	gone := p.rows[0].Name
	p.rows = p.rows[1:]
	p.rows[0].LastError = "disk full"
	for _, name := range []string{gone, p.rows[0].Name} {
		p.entries = append(p.entries, renewal.Entry{ID: int64(1000 + len(p.entries)), Event: enrol.Event{At: noon, Device: name, Kind: enrol.EventRetry}})
	}
	p.mu.Unlock()
	feed(t, m, ticked{noon.Add(2 * time.Second)})
	if m.rows.len() != 199 || m.rows.find(gone) != nil {
		t.Errorf("%d devices, %s among them: %v", m.rows.len(), gone, m.rows.find(gone) != nil)
	}
	if i := m.rows.find(p.rows[0].Name); i == nil || i.failure != "disk full" {
		t.Errorf("the row was not read again: %+v", i)
	}
}

// TestLeaving: devices that are worked on are waited for, once.
func TestLeaving(t *testing.T) {
	t.Parallel()
	o := options(newPlant(10))
	stopped := 0
	o.Stop = func() { stopped++ }
	m := screenOf(t, o, 80, 24)
	feed(t, m, startedWork("plc-000001.bilbao"))
	press(t, m, "q")
	if m.gone || stopped != 1 {
		t.Fatalf("gone %v, the loop was stopped %d times", m.gone, stopped)
	}
	if feed(t, m, finishedWork("plc-000001.bilbao")); !m.gone {
		t.Error("it stays though all is finished")
	}
	m = screenOf(t, o, 80, 24)
	feed(t, m, startedWork("plc-000001.bilbao"))
	if press(t, m, "q", "q"); !m.gone {
		t.Error("a second q does not leave")
	}
}

// TestSameScreen: what changes nothing is not drawn again, and what changes
// something is.
func TestSameScreen(t *testing.T) {
	t.Parallel()
	p := newPlant(50)
	m := screenOf(t, options(p), 80, 24)
	m.View()
	run(t, m, m.poll(true))
	if m.drawn == "" {
		t.Error("the screen is drawn again though all was read before")
	}
	p.mu.Lock()
	p.census.Expired += 10
	p.mu.Unlock()
	m.View()
	run(t, m, m.poll(true))
	if m.View(); !strings.Contains(m.drawn, count(p.census.Expired)) {
		t.Errorf("no %d on the screen:\n%s", p.census.Expired, m.drawn)
	}
	p.mu.Lock()
	p.err = errors.New("database is locked")
	p.mu.Unlock()
	run(t, m, m.poll(true))
	if m.View(); !strings.Contains(m.drawn, "database is locked") {
		t.Errorf("a failed reading does not show:\n%s", m.drawn)
	}
}
