package tui

import (
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
)

// detailView draws all that is known of the device under the cursor, as far as
// it is scrolled.
func (m *model) detailView(l layout) []string {
	t, w := m.theme, l.detailWidth
	i := m.selected()
	if i == nil {
		return []string{t.rule(w, m.focus == onDetail, "no device")}
	}
	lines := m.detailLines(i, w)
	m.detail.lines = lines
	m.detail.scroll(0, l.detailLines)
	note := ""
	if len(lines) > l.detailLines && l.detailLines > 0 {
		note = itoa((m.detail.top+l.detailLines)*100/len(lines)) + " %"
	}
	out := []string{t.rule(w, m.focus == onDetail, i.name, note)}
	return append(out, lines[m.detail.top:]...)
}

// sheet gathers the lines of a pane.
type sheet struct {
	m     *model
	t     theme
	w     int
	lines []string
}

// labelled is where values stand, behind their labels.
const labelled = 12

func (s *sheet) add(l *line) { s.lines = append(s.lines, l.String()) }
func (s *sheet) gap()        { s.add(s.t.line(s.w)) }
func (s *sheet) head(title string) {
	s.gap()
	s.add(s.t.line(s.w).space(1).put(s.t.title, title))
}

// fact writes a label and a value over as many lines as it takes.
func (s *sheet) fact(label string, st style, value string) {
	if value = clean(value, s.m.o.ASCII); value == "" {
		return
	}
	for k, part := range wrap(value, s.w-labelled-1) {
		l := s.t.line(s.w).space(1)
		if k == 0 {
			l.put(s.t.dim, label)
		}
		s.add(l.to(labelled).put(st, part))
	}
}

func (s *sheet) paragraph(st style, text string) {
	for _, part := range wrap(clean(text, s.m.o.ASCII), s.w-2) {
		s.add(s.t.line(s.w).space(1).put(st, part))
	}
}

func (m *model) detailLines(i *item, w int) []string {
	s := &sheet{m: m, t: m.theme, w: w}
	st := statusOf(&i.Row, m.now)
	state := s.t.line(w).space(1).put(s.t.dim, "State").to(labelled)
	m.putStatus(state, i, w)
	if st != failing && i.LastError != "" {
		state.put(s.t.warn, ", failing")
	}
	if st != expired && is(&i.Row, expired, m.now) {
		state.put(s.t.bad, ", expired")
	}
	s.add(state)
	s.fact("Address", "", firstText(i.Address, "unknown"))
	s.fact("Asset", "", i.Asset)
	s.fact("Labels", "", strings.ReplaceAll(fleet.FormatLabels(i.Labels), ";", " "))
	p := m.detail
	if p.d != nil && p.name == i.Name {
		s.fact("Identity", "", p.d.Device.Identity.String())
	}
	m.failureLines(s, i)
	m.lifeLines(s, i)
	switch {
	case p.name != i.Name || p.d == nil && p.err == nil:
		s.gap()
		s.add(s.t.line(w).space(1).put(s.t.dim, "reading "+s.t.glyphs.ellipsis))
		return s.lines
	case errors.Is(p.err, enrol.ErrNotFound):
		s.gap()
		s.paragraph(s.t.warn, "The inventory no longer has this device.")
		return s.lines
	case p.err != nil:
		s.gap()
		s.paragraph(s.t.bad, "inventory not readable: "+p.err.Error())
	}
	if p.d != nil {
		m.certificateLines(s, *p.d)
		m.waitingLines(s, *p.d)
		m.enrolmentLines(s, *p.d)
		m.historyLines(s, *p.d)
	}
	return s.lines
}

// lifeLines draws the certificate's life as a meter: what is gone, and where its
// renewal stands.
func (m *model) lifeLines(s *sheet, i *item) {
	s.head("Certificate")
	if i.NotAfter.IsZero() {
		s.paragraph(s.t.dim, "It owns none.")
		return
	}
	both := func(at time.Time) string { return absolute(at, m.o.Zone) }
	if left := i.NotAfter.Sub(m.now); left > 0 {
		s.fact("Ends", m.urgency(i.Row, left), "in "+span(left)+", "+both(i.NotAfter))
	} else {
		s.fact("Ended", s.t.bad, span(left)+" ago, "+both(i.NotAfter))
	}
	switch wait := i.RenewAt.Sub(m.now); {
	case i.RenewAt.IsZero():
	case wait > 0 && is(&i.Row, expired, m.now):
		s.fact("Renews", s.t.warn, "now: it has expired")
	case wait > 0:
		s.fact("Renews", "", "in "+span(wait)+", "+both(i.RenewAt))
	default:
		s.fact("Renews", s.t.warn, "due since "+span(wait)+", "+both(i.RenewAt))
	}
	life := i.NotAfter.Sub(i.NotBefore)
	n := s.w - labelled - 6
	if life <= 0 || n < 10 {
		return
	}
	at := func(t time.Time) int {
		return int(max(0, min(float64(n), float64(n)*float64(t.Sub(i.NotBefore))/float64(life))))
	}
	gone, tick := at(m.now), min(at(i.RenewAt), n-1)
	l := s.t.line(s.w).space(1).put(s.t.dim, "Life").to(labelled)
	st := m.urgency(i.Row, i.NotAfter.Sub(m.now))
	if st == "" {
		st = s.t.good
	}
	for k := range n {
		switch {
		case k == tick && !i.RenewAt.IsZero():
			l.put(s.t.strong, s.t.glyphs.tick)
		case k < gone:
			l.put(st, s.t.glyphs.full)
		default:
			l.put(s.t.dim, s.t.glyphs.rest)
		}
	}
	s.add(l.put(s.t.dim, " "+itoa(gone*100/n)+" %"))
}

func (m *model) failureLines(s *sheet, i *item) {
	if i.LastError == "" {
		return
	}
	s.head("Last error")
	s.paragraph(s.t.warn, i.LastError)
	if d := m.detail.d; d != nil && m.detail.name == i.Name {
		for _, e := range d.Events {
			if e.Class == "" {
				continue
			}
			if h := hint(e.Class); h != "" {
				s.paragraph("", h)
			}
			s.fact("Class", "", string(e.Class)+", in state "+string(e.State)+", "+ago(e.At, m.now))
			break
		}
	}
	if i.Attempts > 0 {
		s.fact("Failed", "", itoa(i.Attempts)+each(i.Attempts, " enrolment", " enrolments")+" since the last success")
	}
	switch {
	case i.Quarantined && m.o.Actions.Release == nil:
		s.fact("Next try", s.t.bad, "none: in quarantine, until it is released")
	case i.Quarantined:
		s.fact("Next try", s.t.bad, "none: in quarantine, until it is released (x)")
	case i.NextAttempt.After(m.now):
		s.fact("Next try", "", "in "+span(i.NextAttempt.Sub(m.now))+", "+absolute(i.NextAttempt, m.o.Zone))
	}
}

func (m *model) certificateLines(s *sheet, d Detail) {
	c := d.Device.Certificate
	if c == nil {
		return
	}
	s.fact("Serial", "", c.Serial)
	s.fact("Subject", "", c.Subject)
	s.fact("Issuer", "", c.Issuer)
	s.fact("From", "", absolute(c.NotBefore, m.o.Zone))
	if !d.Device.EnrolledAt.IsZero() {
		s.fact("Active", "", "since "+absolute(d.Device.EnrolledAt, m.o.Zone))
	}
	s.fact("SHA-256", s.t.dim, hex.EncodeToString(c.SHA256[:]))
	earlier := 0
	for _, c := range d.Certificates {
		if !c.Active {
			earlier++
		}
	}
	if earlier > 0 {
		s.fact("Earlier", "", itoa(earlier)+" on record")
	}
}

func (m *model) waitingLines(s *sheet, d Detail) {
	if len(d.Deliveries) == 0 {
		return
	}
	s.head("Waits to be handed over")
	for _, w := range d.Deliveries {
		s.paragraph("", w.String()+", for "+span(m.now.Sub(w.QueuedAt)))
		if w.LastError != "" {
			s.paragraph(s.t.warn, w.LastError)
		}
	}
}

// stepsOf are the five steps of the paper.
func stepsOf(s enrol.Steps) []struct {
	name string
	d    time.Duration
} {
	return []struct {
		name string
		d    time.Duration
	}{
		{"CSR request", s.CSRRequest}, {"key, CSR", s.KeyAndCSR}, {"CA", s.Enrolment},
		{"verify req.", s.VerifyRequest}, {"verification", s.Verification},
	}
}

// enrolmentLines shows where the time of the last enrolment went, and what came
// of those before.
func (m *model) enrolmentLines(s *sheet, d Detail) {
	if len(d.Enrolments) == 0 {
		return
	}
	s.head("Enrolments")
	const numbers = 8
	for k, e := range d.Enrolments {
		st, word := s.t.good, string(e.State)
		switch {
		case e.State == enrol.Failed:
			st, word = s.t.bad, "failed, by the "+string(e.FailedBy)
		case e.State != enrol.Completed:
			st, word = s.t.warn, "at "+string(e.State)
		}
		l := s.t.line(s.w).space(1).put(s.t.dim, moment(e.CreatedAt, m.now, m.o.Zone)).put("", " ").put(st, word)
		if total := e.Steps.Total(); total > 0 {
			l.end("", took(total))
		}
		s.add(l)
		if k > 0 || e.Steps.Total() <= 0 {
			continue
		}
		steps := stepsOf(e.Steps)
		most := slices.MaxFunc(steps, func(a, b struct {
			name string
			d    time.Duration
		}) int {
			return int(max(-1, min(1, a.d-b.d)))
		}).d
		n := s.w - labelled - 4 - numbers
		for _, step := range steps {
			l := s.t.line(s.w).space(3).put(s.t.dim, step.name).to(labelled + 4)
			if n > 3 {
				l.put(s.t.accent, meter(s.t, int(int64(n-2)*int64(step.d)/int64(max(most, 1))), step.d > 0))
			}
			s.add(l.end(s.t.dim, took(step.d)))
		}
	}
}

// meter is a bar of full characters; what is not 0 shows.
func meter(t theme, n int, some bool) string {
	if some {
		n = max(n, 1)
	}
	return strings.Repeat(t.glyphs.block, max(n, 0))
}

func (m *model) historyLines(s *sheet, d Detail) {
	if len(d.Events) == 0 {
		return
	}
	s.head("History")
	for _, e := range d.Events {
		when := moment(e.At, m.now, m.o.Zone)
		s.add(s.t.line(s.w).space(1).put(s.t.dim, when).put("", " ").put(m.kindStyle(e.Kind), clean(string(e.Kind), m.o.ASCII)))
		for _, part := range wrap(clean(eventText(e), m.o.ASCII), s.w-4) {
			s.add(s.t.line(s.w).space(3).put("", part))
		}
	}
}
