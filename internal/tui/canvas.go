package tui

import (
	"strconv"
	"strings"
)

func itoa(n int) string { return strconv.Itoa(n) }

// line is one line of the screen being written, from left to right, never
// wider than it may be.
type line struct {
	b     strings.Builder
	at    int // columns written
	max   int
	under style // background of all of it
	cut   string
}

func (t theme) line(columns int) *line { return &line{max: columns, cut: t.glyphs.ellipsis} }

func (t theme) barLine(columns int) *line {
	l := t.line(columns)
	l.under = t.bar
	return l
}

// put writes cleaned text; what has no room is cut.
func (l *line) put(s style, text string) *line {
	text = fit(text, l.max-l.at, l.cut)
	if text == "" {
		return l
	}
	l.at += width(text)
	switch {
	case s == "" && l.under == "":
		l.b.WriteString(text)
		return l
	case s == "":
		s = l.under
	case l.under != "":
		s = l.under + ";" + s
	}
	l.b.WriteString("\x1b[" + string(s) + "m" + text + "\x1b[m")
	return l
}

// cell writes text into a column of its own, cut and filled up to the left or
// right.
func (l *line) cell(s style, text string, columns int, right bool) *line {
	end := min(l.at+columns, l.max)
	text = fit(text, end-l.at, l.cut)
	if right {
		l.to(end - width(text))
	}
	return l.put(s, text).to(end)
}

// to writes blanks up to a column.
func (l *line) to(column int) *line {
	if n := min(column, l.max) - l.at; n > 0 {
		l.put("", strings.Repeat(" ", n))
	}
	return l
}

func (l *line) space(n int) *line { return l.to(l.at + n) }

// end writes text flush with the right edge, if there is room for all of it.
func (l *line) end(s style, text string) *line {
	w := width(text)
	if l.at+w+1 > l.max {
		return l
	}
	return l.to(l.max-w).put(s, text)
}

func (l *line) room() int { return l.max - l.at }

// String returns the line, filled with blanks.
func (l *line) String() string {
	l.to(l.max)
	return l.b.String()
}

// blank returns empty lines.
func blank(columns, n int) []string {
	out := make([]string, max(n, 0))
	for i := range out {
		out[i] = strings.Repeat(" ", max(columns, 0))
	}
	return out
}

// exactly cuts or fills a block to a number of lines.
func exactly(lines []string, columns, n int) []string {
	n = max(n, 0)
	if len(lines) > n {
		return lines[:n]
	}
	return append(lines, blank(columns, n-len(lines))...)
}

// beside puts blocks next to each other; each is n lines high.
func beside(n int, blocks ...[]string) []string {
	out := make([]string, n)
	for i := range out {
		for _, b := range blocks {
			out[i] += b[i]
		}
	}
	return out
}

// rule writes a titled horizontal line: facts to the left, notes to the right.
func (t theme) rule(columns int, focused bool, title string, notes ...string) string {
	l := t.line(columns)
	s := t.strong
	if focused {
		s = t.title
	}
	l.put(t.dim, t.glyphs.rule).put("", " ").put(s, title).put("", " ")
	var kept []string
	for _, n := range notes {
		if n != "" {
			kept = append(kept, n)
		}
	}
	for len(kept) > 0 && width(strings.Join(kept, "  "))+4 > l.room() {
		kept = kept[:len(kept)-1]
	}
	note := strings.Join(kept, " "+t.glyphs.dot+" ")
	tail := 0
	if note != "" {
		tail = width(note) + 3
	}
	if n := l.room() - tail; n > 0 {
		l.put(t.dim, strings.Repeat(t.glyphs.rule, n))
	}
	if note != "" {
		l.put("", " ").put(t.dim, note).put("", " ").put(t.dim, t.glyphs.rule)
	}
	return l.String()
}
