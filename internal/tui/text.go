package tui

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
)

// clean makes one line of text from outside fit for a terminal: no control or
// format characters (an escape sequence loses its escape, a text cannot change
// its direction), and nothing on whose width terminals disagree. plain also
// replaces what is not ASCII.
func clean(s string, plain bool) string {
	if printable(s) {
		return s
	}
	out := strip(s, plain)
	if ansi.StringWidth(out) == ansi.StringWidthWc(out) {
		return out
	}
	return strings.Map(func(r rune) rune {
		if r >= 0x7f && ansi.StringWidth(string(r)) != 1 {
			return '?'
		}
		return r
	}, dropMarks(out))
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// maxMarks bounds the combining marks on one character.
const maxMarks = 2

func strip(s string, plain bool) string {
	var b strings.Builder
	b.Grow(len(s))
	marks := 0
	for _, r := range s {
		switch {
		case r == '\n' || r == '\t' || r == '\r' || r == 0x85 || r == 0xa0 || unicode.In(r, unicode.Zl, unicode.Zp):
			r = ' '
		case r == utf8.RuneError:
			r = '?'
		case unicode.In(r, unicode.C, unicode.Variation_Selector):
			continue
		case joins(r):
			r = '?'
		case unicode.In(r, unicode.M, unicode.Other_Grapheme_Extend):
			if !unicode.In(r, unicode.Mn) {
				continue
			}
			if marks++; marks > maxMarks || plain || b.Len() == 0 {
				continue
			}
			b.WriteRune(r)
			continue
		case plain && r > '~':
			r = '?'
		}
		marks = 0
		b.WriteRune(r)
	}
	return b.String()
}

// joins reports whether a character changes the width of its neighbours: skin
// tones, halves of flags, pieces of Korean syllables.
func joins(r rune) bool {
	return r >= 0x1f3fb && r <= 0x1f3ff || r >= 0x1f1e6 && r <= 0x1f1ff ||
		r >= 0x1100 && r <= 0x11ff || r >= 0xa960 && r <= 0xa97f || r >= 0xd7b0 && r <= 0xd7ff
}

func dropMarks(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.M) {
			return -1
		}
		return r
	}, s)
}

// width is the number of columns of cleaned text.
func width(s string) int {
	if printable(s) {
		return len(s)
	}
	return ansi.StringWidth(s)
}

// fit cuts cleaned text to a number of columns.
func fit(s string, columns int, ellipsis string) string {
	switch {
	case columns <= 0:
		return ""
	case width(s) <= columns:
		return s
	case width(ellipsis) >= columns:
		return ansi.Truncate(s, columns, "")
	}
	return ansi.Truncate(s, columns, ellipsis)
}

// fitMiddle cuts cleaned text to a number of columns so that its beginning and
// its end are seen: the end of an error says most.
func fitMiddle(s string, columns int, ellipsis string) string {
	head := columns/2 - width(ellipsis)
	if width(s) <= columns || head < 8 {
		return fit(s, columns, ellipsis)
	}
	head = width(fit(s, head, ""))
	return fit(s, head, "") + ellipsis + ansi.TruncateLeft(s, width(s)-(columns-head-width(ellipsis)), "")
}

// wrap breaks cleaned text into lines of at most so many columns; words that
// are longer are broken.
func wrap(s string, columns int) []string {
	if columns <= 0 || s == "" {
		return nil
	}
	lines := strings.Split(ansi.Wrap(s, columns, " "), "\n")
	for i, l := range lines {
		lines[i] = fit(strings.TrimRight(l, " "), columns, "")
	}
	return lines
}
