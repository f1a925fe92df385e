package tui

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
)

// TestNarrowViews: a split window of tmux shows less, and nothing cut in half
// but names.
func TestNarrowViews(t *testing.T) {
	t.Parallel()
	for _, size := range [][2]int{{44, 12}, {40, 10}, {30, 6}, {20, 4}} {
		m := screenOf(t, options(newPlant(1200)), size[0], size[1])
		s := m.View().Content
		checkScreen(t, s, size[0], size[1])
		golden(t, fmt.Sprintf("table-%dx%d", size[0], size[1]), ansi.Strip(s))
		m.o.Source.(*plant).err = errors.New("database is locked")
		feed(t, m, ticked{noon.Add(time.Minute)})
		if s = m.View().Content; !strings.Contains(s, "data 1m") {
			t.Errorf("%v: data is old, and not called so:\n%s", size, s)
		}
	}
}

// TestWideLabels: characters of two columns, and marks of none, keep every
// column where it is.
func TestWideLabels(t *testing.T) {
	t.Parallel()
	p := newPlant(40)
	for k, label := range []string{"プレス七号", "Ana👷🏽‍♀️ Zoë", "e\u0301\u0301\u0301\u0301cole", "한글 각", "🇪🇸", "ﷺ\u202eabc", strings.Repeat("世", 60)} {
		p.rows[k].LastError, p.rows[k].Labels = "", map[string]string{"line": label}
	}
	for _, width := range []int{80, 81, 131, 160} {
		m := screenOf(t, options(p), width, 50)
		press(t, m, "s") // by name: these on top
		for k := range 7 {
			row := m.rows.at(m.shown.slots[k])
			line := strings.Split(ansi.Strip(m.View().Content), "\n")[m.layout().headerLines+2+k]
			columns := m.columns(m.layout().tableWidth)
			at := 2
			for _, c := range columns {
				if c.by == byFailure && !strings.HasPrefix(ansi.Cut(line, at, at+5), "line=") && m.w < 104 {
					t.Errorf("%d columns: the labels of %s do not begin at %d: %q", width, row.Name, at, line)
				}
				at += c.width + 2
			}
		}
		checkScreen(t, m.View().Content, width, 50)
	}
}
