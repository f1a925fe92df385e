package tui

// helpKeys are the keys, in two columns that fit 80 characters.
func helpKeys() (left, right []hintOf) {
	left = []hintOf{
		{"j k, arrows", "move"}, {"pgup pgdn", "a page"}, {"g G", "first, last"},
		{"enter", "detail; esc closes it"}, {"tab", "next pane"}, {"e", "events, on and off"},
		{"s S", "next order, reverse"}, {"space *", "mark one, all shown"}, {"ctrl+l", "read everything anew"}, {"q", "quit, in good order"},
	}
	right = []hintOf{
		{"/", "filter: every word fits"}, {"  press-7", "anywhere"}, {"  line=3", "a label"},
		{"  error:disk", "name address asset ..."}, {"  state:due", "a state"}, {"  -line=3", "not"},
		{"0 to 7", "all, or one state"}, {"r", "renew now"}, {"p", "pause, resume"}, {"x", "end a quarantine"},
	}
	return left, right
}

// helpPane lists all keys.
func (m *model) helpPane(w, n int) []string {
	t := m.theme
	out := []string{t.rule(w, true, "Keys")}
	left, right := helpKeys()
	if w < 76 {
		left, right = append(left, right...), nil
	}
	for k := range left {
		l := t.line(w).space(1)
		l.cell(t.key, left[k].key, 15, false).put("", left[k].does)
		if k < len(right) {
			l.to(w/2+1).cell(t.key, right[k].key, 15, false).put("", right[k].does)
		}
		out = append(out, l.String())
	}
	if n >= len(out)+2 {
		out = append(out, blank(w, 1)[0], t.line(w).space(1).put(t.key, "r p x").
			put("", " act on the marked devices, else on the one under the cursor, after a ").put(t.key, "y").String())
	}
	if legend := m.legend(w); n >= len(out)+2+len(legend) {
		out = append(append(out, blank(w, 1)[0], t.rule(w, true, "States")), legend...)
	}
	return out
}

// legend says what the signs of the states mean.
func (m *model) legend(w int) []string {
	t := m.theme
	var out []string
	l := t.line(w).space(1)
	for s := range statuses {
		if l.room() < len(s.String())+2 {
			out = append(out, l.String())
			l = t.line(w).space(1)
		}
		l.put(t.of(s), t.glyphs.status[s]).put("", " "+s.String()).space(2)
	}
	return append(out, l.String())
}
