package tui

import (
	"strings"
	"unicode"

	tea "charm.land/bubbletea/v2"
)

// maxField bounds what can be typed, in characters.
const maxField = 200

// field is one line of text that is being typed.
type field struct {
	text []rune
	at   int // of the cursor
}

func (f *field) String() string { return string(f.text) }

func (f *field) set(s string) { f.text, f.at = nil, 0; f.insert(s) }

func (f *field) insert(s string) {
	for _, r := range clean(s, false) {
		if len(f.text) >= maxField {
			return
		}
		f.text = append(f.text[:f.at:f.at], append([]rune{r}, f.text[f.at:]...)...)
		f.at++
	}
}

// key edits the text; false: the key means nothing here.
func (f *field) key(k tea.KeyPressMsg) bool {
	switch k.String() {
	case "left", "ctrl+b":
		f.at = max(0, f.at-1)
	case "right", "ctrl+f":
		f.at = min(len(f.text), f.at+1)
	case "home", "ctrl+a":
		f.at = 0
	case "end", "ctrl+e":
		f.at = len(f.text)
	case "backspace", "ctrl+h":
		f.cut(max(0, f.at-1), f.at)
	case "delete", "ctrl+d":
		f.cut(f.at, min(len(f.text), f.at+1))
	case "ctrl+u":
		f.cut(0, f.at)
	case "ctrl+k":
		f.cut(f.at, len(f.text))
	case "ctrl+w", "alt+backspace":
		from := f.at
		for from > 0 && unicode.IsSpace(f.text[from-1]) {
			from--
		}
		for from > 0 && !unicode.IsSpace(f.text[from-1]) {
			from--
		}
		f.cut(from, f.at)
	default:
		if k.Text == "" {
			return false
		}
		f.insert(k.Text)
	}
	return true
}

func (f *field) cut(from, to int) {
	f.text = append(f.text[:from:from], f.text[to:]...)
	f.at = from
}

// put writes the field with a block for its cursor. Of a long text the part
// around the cursor is seen.
func (f *field) put(l *line, t theme) {
	before, after := string(f.text[:f.at]), string(f.text[f.at:])
	under := " "
	if after != "" {
		r := []rune(after)
		under, after = string(r[0]), string(r[1:])
	}
	for width(before) > max(0, l.room()-2) && before != "" {
		_, rest, _ := strings.Cut(before, "")
		before = rest
		if r := []rune(before); len(r) > 0 {
			before = string(r[1:])
		}
	}
	if t.ascii {
		before, under, after = clean(before, true), clean(under, true), clean(after, true)
	}
	l.put("", before).put("7", under).put("", after)
}
