package tui

import "strings"

// style is a list of SGR parameters (ECMA-48 section 8.3.117); "" is plain.
// Colours are given in full and reduced to what the terminal has by the
// renderer.
type style string

// theme is how the dashboard looks: on a dark or a light background, without
// colours, without anything but ASCII.
type theme struct {
	ascii bool

	dim, strong, good, warn, bad, busy, accent, title, key style
	// The row under the cursor, and the first and last line. They have a
	// foreground of their own: a terminal of other colours may come any time.
	selected, bar style

	glyphs glyphs
}

// glyphs are the characters that are not text. Each is one column wide.
type glyphs struct {
	ellipsis   string
	rule       string // horizontal
	fence      string // vertical
	cursor     string
	mark       string
	dot        string // between facts
	down, up   string // sort order
	bars       []string
	none       string // for a bar of nothing
	block      string // of a bar
	full, rest string // of a meter
	tick       string // on a meter
	status     [statuses]string
	spin       []string
	caUp       string
	caDown     string
	caTrying   string
}

func newTheme(dark, colour, ascii bool) theme {
	t := theme{ascii: ascii, glyphs: unicodeGlyphs()}
	if ascii {
		t.glyphs = asciiGlyphs()
	}
	switch {
	case !colour:
		t.strong, t.title, t.key, t.accent = "1", "1", "1", "1"
		t.bad = "1"
		t.selected, t.bar = "7", "7"
	case dark:
		t.dim, t.strong, t.title, t.key = grey(245), "1", "1;"+rgb("7fc8f8"), rgb("7fc8f8")
		t.good, t.warn, t.bad = rgb("8cc98f"), rgb("e8b868"), rgb("f47f7f")
		t.busy, t.accent = rgb("7fc8f8"), rgb("7fc8f8")
		t.selected, t.bar = ground(238)+";"+grey(255), ground(236)+";"+grey(252)
	default:
		t.dim, t.strong, t.title, t.key = grey(242), "1", "1;"+rgb("1c5d99"), rgb("1c5d99")
		t.good, t.warn, t.bad = rgb("2f7d3b"), rgb("935f00"), rgb("b42318")
		t.busy, t.accent = rgb("1c5d99"), rgb("1c5d99")
		t.selected, t.bar = ground(252)+";"+grey(232), ground(254)+";"+grey(235)
	}
	return t
}

func rgb(hex string) style { return "38;2;" + components(hex) }

// Greys, and the grounds on which they stand, are of the 256 colours: what reduces others to these makes greys blue.
func grey(index int) style   { return style("38;5;" + itoa(index)) }
func ground(index int) style { return style("48;5;" + itoa(index)) }

// components writes rrggbb as decimal parameters.
func components(hex string) style {
	var out []string
	for i := 0; i+2 <= len(hex); i += 2 {
		n := 0
		for _, c := range hex[i : i+2] {
			n = n<<4 | strings.IndexRune("0123456789abcdef", c)
		}
		out = append(out, itoa(n))
	}
	return style(strings.Join(out, ";"))
}

func unicodeGlyphs() glyphs {
	return glyphs{
		ellipsis: "…", rule: "─", fence: "│", cursor: "▌", mark: "✓", dot: "·", down: "↓", up: "↑",
		bars: []string{" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"},
		none: "·", block: "▇", full: "━", rest: "─", tick: "┃",
		status: [statuses]string{quarantined: "■", expired: "✗", failing: "▲", unenrolled: "○", due: "◔", operational: "●", paused: "‖"},
		spin:   []string{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"},
		caUp:   "●", caDown: "✗", caTrying: "◔",
	}
}

func asciiGlyphs() glyphs {
	return glyphs{
		ellipsis: "~", rule: "-", fence: "|", cursor: ">", mark: "*", dot: "-", down: "v", up: "^",
		bars: []string{" ", ".", ".", ":", ":", "+", "+", "#", "#"},
		none: " ", block: "#", full: "=", rest: "-", tick: "|",
		status: [statuses]string{quarantined: "#", expired: "x", failing: "!", unenrolled: "o", due: "~", operational: "+", paused: "="},
		spin:   []string{"|", "/", "-", "\\"},
		caUp:   "+", caDown: "x", caTrying: "~",
	}
}

// of returns the colour of a status.
func (t theme) of(s status) style {
	switch s {
	case quarantined, expired:
		return t.bad
	case failing, due:
		return t.warn
	case operational:
		return t.good
	}
	return t.dim
}
