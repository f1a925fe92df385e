package tui

import (
	"strings"
	"time"
)

// term is one word of a filter; a device passes if every term fits.
type term struct {
	field string // "": any
	value string // in lower case
	pair  string // of a label: as it stands among an item's pairs
	not   bool
}

// parseFilter reads words: text (anywhere), key=value (a label), field:text
// (name, address, asset, label, error, state); a leading - or ! turns a word
// round.
func parseFilter(s string) []term {
	var out []term
	for _, word := range strings.Fields(strings.ToLower(s)) {
		var t term
		if rest := strings.TrimLeft(word, "-!"); rest != word && rest != "" {
			t.not, word = true, rest
		}
		t.value = word
		field, value, ok := strings.Cut(word, ":")
		switch {
		case !ok || !isField(field):
			if k, _, label := strings.Cut(word, "="); label && k != "" {
				t.field, t.pair = "=", ";"+word
				if !strings.HasSuffix(word, "=") {
					t.pair += ";"
				}
			}
		case value == "":
			continue // still being typed
		default:
			t.field, t.value = field, value
		}
		out = append(out, t)
	}
	return out
}

func isField(s string) bool {
	switch s {
	case "name", "address", "asset", "label", "error", "state":
		return true
	}
	return false
}

// fits reports whether a device passes.
func (i *item) fits(terms []term, now time.Time) bool {
	for _, t := range terms {
		if i.has(t, now) == t.not {
			return false
		}
	}
	return true
}

func (i *item) has(t term, now time.Time) bool {
	in := func(s string) bool { return strings.Contains(strings.ToLower(s), t.value) }
	switch t.field {
	case "":
		return in(i.Name) || in(i.Address) || strings.Contains(i.pairs, t.value) || in(i.LastError) || in(i.Asset)
	case "=":
		return strings.Contains(i.pairs, t.pair)
	case "name":
		return in(i.Name)
	case "address":
		return in(i.Address)
	case "asset":
		return in(i.Asset)
	case "label":
		return strings.Contains(i.pairs, t.value)
	case "error":
		return in(i.LastError)
	}
	for s := range statuses {
		if strings.HasPrefix(strings.ReplaceAll(s.String(), " ", "-"), t.value) && is(&i.Row, s, now) {
			return true
		}
	}
	return false
}

// usesClock reports whether who passes changes with time alone.
func usesClock(terms []term) bool {
	for _, t := range terms {
		if t.field == "state" {
			return true
		}
	}
	return false
}
