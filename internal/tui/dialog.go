package tui

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
)

// dialog is a question about an action; nothing is done before a y.
type dialog struct {
	verb   string // what was done, for the line after it
	title  string
	text   []string // paragraphs
	act    Act
	names  []string
	asks   bool // for a reason, before the y
	reason field
}

// targets are the devices that an action is about: those that are marked, else
// the one under the cursor.
func (m *model) targets() []*item {
	if len(m.marked) == 0 {
		if i := m.selected(); i != nil {
			return []*item{i}
		}
		return nil
	}
	out := make([]*item, 0, len(m.marked))
	for slot := range m.marked {
		if i := m.rows.at(slot); i != nil {
			out = append(out, i)
		}
	}
	slices.SortFunc(out, func(a, b *item) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// propose opens the dialog of an action, or says why it cannot be done.
func (m *model) propose(key string) tea.Cmd {
	targets := m.targets()
	var d *dialog
	var refusal string
	switch {
	case len(targets) == 0:
		return nil
	case m.role.ReadOnly:
		refusal = "this dashboard only shows (--view)"
	case key == "r":
		d, refusal = m.proposeRenew(targets)
	case key == "p":
		d = m.proposePause(targets)
	default:
		d, refusal = m.proposeRelease(targets)
	}
	if refusal == "" && d.act == nil {
		refusal = "that is not on offer here"
	}
	if refusal != "" {
		m.say(refusal, true)
		return nil
	}
	m.dialog = d
	return nil
}

func (m *model) proposeRenew(targets []*item) (d *dialog, refusal string) {
	fit, left := split(targets, func(i *item) bool { return !i.Paused && !i.Quarantined })
	switch {
	case !m.role.Renewing && m.role.Why != "":
		return nil, "this process does not renew (" + m.role.Why + "): clmctl renew --force NAME, there"
	case !m.role.Renewing:
		return nil, "this process does not renew"
	case len(fit) == 0:
		return nil, "paused and quarantined devices are not renewed: p resumes, x releases"
	}
	d = &dialog{verb: "asked for", act: m.o.Actions.Renew, names: names(fit), title: "Renew " + devices(len(fit)) + " now?"}
	d.text = append(d.text, m.list(fit), each(len(fit), "It gets a new key pair and a new certificate", "Each gets a new key pair and a new certificate")+
		" from the CA, whether it is due or not; retry times and the issuance floor do not hold it back, the CA's rate does.")
	if len(left) > 0 {
		d.text = append(d.text, devices(len(left))+" paused or in quarantine "+each(len(left), "is", "are")+" passed over.")
	}
	return d, ""
}

func (m *model) proposePause(targets []*item) *dialog {
	running, resting := split(targets, func(i *item) bool { return !i.Paused })
	if len(running) == 0 {
		d := &dialog{verb: "resumed", act: m.o.Actions.Resume, names: names(resting), title: "Resume " + devices(len(resting)) + "?"}
		d.text = []string{m.list(resting), each(len(resting), "It is renewed again when it is due", "They are renewed again when they are due") + ", which may be at once."}
		return d
	}
	d := &dialog{verb: "paused", act: m.o.Actions.Pause, names: names(running), title: "Pause " + devices(len(running)) + "?"}
	text := "Nobody renews " + each(len(running), "it", "them") + " or hands anything over until somebody resumes " + each(len(running), "it", "them") + "."
	if first := firstEnd(running, m.now); first != nil {
		text += " " + each(len(running), "Its certificate ends", "The first certificate of these ends") + " in " + span(first.NotAfter.Sub(m.now)) +
			" (" + moment(first.NotAfter, m.now, m.o.Zone) + ")."
	}
	d.text = []string{m.list(running), text}
	if len(resting) > 0 {
		d.text = append(d.text, devices(len(resting))+" "+each(len(resting), "is", "are")+" paused already.")
	}
	return d
}

func (m *model) proposeRelease(targets []*item) (d *dialog, refusal string) {
	held, free := split(targets, func(i *item) bool { return i.Quarantined })
	if len(held) == 0 {
		return nil, "not in quarantine: " + each(len(targets), targets[0].name, devices(len(targets)))
	}
	d = &dialog{verb: "released", act: m.o.Actions.Release, names: names(held), asks: true, title: "Release " + devices(len(held)) + " from quarantine?"}
	d.text = []string{m.list(held), "What was wrong should be put right first: " + each(len(held), "its attempts begin", "their attempts begin") +
		" anew, and " + each(len(held), "it is", "they are") + " enrolled at the next opportunity. The reason stands in the history."}
	if len(free) > 0 {
		d.text = append(d.text, devices(len(free))+" "+each(len(free), "is", "are")+" not in quarantine and stay as they are.")
	}
	return d, ""
}

func split(all []*item, good func(*item) bool) (yes, no []*item) {
	for _, i := range all {
		if good(i) {
			yes = append(yes, i)
		} else {
			no = append(no, i)
		}
	}
	return yes, no
}

func names(items []*item) []string {
	out := make([]string, len(items))
	for k, i := range items {
		out[k] = i.Name
	}
	return out
}

func each(n int, one, more string) string {
	if n == 1 {
		return one
	}
	return more
}

// firstEnd is the device whose valid certificate ends first.
func firstEnd(items []*item, now time.Time) *item {
	var first *item
	for _, i := range items {
		if i.NotAfter.After(now) && (first == nil || i.NotAfter.Before(first.NotAfter)) {
			first = i
		}
	}
	return first
}

// list names a few devices.
func (m *model) list(items []*item) string {
	const few = 4
	var out []string
	for _, i := range items[:min(few, len(items))] {
		out = append(out, i.name)
	}
	if more := len(items) - few; more > 0 {
		return strings.Join(out, ", ") + fmt.Sprintf(" and %s more", count(more))
	}
	return strings.Join(out, ", ")
}

func (m *model) dialogKey(k tea.KeyPressMsg) tea.Cmd {
	d := m.dialog
	if k.String() == "esc" {
		m.dialog = nil
		return nil
	}
	if d.asks {
		if k.String() != "enter" {
			d.reason.key(k)
		} else if strings.TrimSpace(d.reason.String()) != "" {
			d.asks = false
		}
		return nil
	}
	switch k.String() {
	case "y", "Y":
		m.dialog = nil
		return m.carryOut(d)
	case "n", "N", "q":
		m.dialog = nil
	}
	return nil
}

// acted is what came of an action.
type acted struct {
	d   *dialog
	err error
}

// actTime bounds an action; on a whole fleet it takes its time.
const actTime = 10 * time.Minute

func (m *model) carryOut(d *dialog) tea.Cmd {
	base, reason := m.ctx, strings.TrimSpace(d.reason.String())
	m.say("working on "+devices(len(d.names))+" "+m.theme.glyphs.ellipsis, false)
	m.noticeTill = m.now.Add(actTime)
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(base, actTime)
		defer cancel()
		return acted{d, d.act(ctx, d.names, reason)}
	}
}

func (m *model) acted(a acted) tea.Cmd {
	if a.err != nil {
		m.say(a.err.Error(), true)
	} else {
		m.say(devices(len(a.d.names))+": "+a.d.verb, false)
		clear(m.marked)
	}
	// The events say which rows have changed.
	for of := range readings {
		m.reads[of].began = time.Time{}
	}
	return m.poll(false)
}
