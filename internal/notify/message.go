package notify

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/edgeclm/edgeclm/internal/alert"
)

// MessageVersion is the version of the JSON form.
const MessageVersion = 1

// Types of messages.
const (
	TypeDigest = "alerts.digest"
	TypeTest   = "alerts.test"
)

// Bounds of a message.
const (
	maxLines   = 20 // alerts of each section
	maxNamed   = 20 // devices that an alert names in the JSON form
	maxSubject = 120
)

// Message is what a channel delivers; its JSON form, described in
// docs/notifications.md, is what a hook and a webhook get.
type Message struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"` // when it was made
	Data      Data      `json:"data"`
}

// Data is the content of a message.
type Data struct {
	Version   int            `json:"version"`
	ID        string         `json:"id"` // the same over all tries
	Sequence  uint64         `json:"sequence"`
	CLM       string         `json:"clm"` // who tells
	Severity  alert.Severity `json:"severity"`
	Subject   string         `json:"subject"`
	Text      string         `json:"text"`
	New       []alert.Alert  `json:"new"`
	Worse     []alert.Alert  `json:"worse"`
	Ongoing   []alert.Alert  `json:"ongoing"`
	Recovered []Recovered    `json:"recovered"`
	Omitted   int            `json:"omitted"` // alerts for which there was no room
	Open      int            `json:"open"`    // alerts that are open, whether they stand here or not
}

// Recovered is an alert that is no more.
type Recovered struct {
	alert.Alert
	Seconds int64 `json:"seconds"` // how long it was there
}

func newID() (string, error) {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return "", fmt.Errorf("read random: %w", err)
	}
	return "msg_" + hex.EncodeToString(id[:]), nil
}

// NewMessage puts a digest into words. clm names who tells.
func NewMessage(id, clm string, d alert.Digest) Message {
	m := Message{Type: TypeDigest, Timestamp: d.At.UTC(), Data: Data{
		Version: MessageVersion, ID: id, Sequence: d.Sequence, CLM: alert.Clean(clm, maxSubject), Severity: d.Severity(), Open: d.Open,
	}}
	m.Data.New = m.take(d.New)
	m.Data.Worse = m.take(d.Worse)
	m.Data.Ongoing = m.take(d.Ongoing)
	m.Data.Recovered = []Recovered{}
	for i, r := range d.Recovered {
		if i == maxLines {
			m.Data.Omitted += len(d.Recovered) - maxLines
			break
		}
		m.Data.Recovered = append(m.Data.Recovered, Recovered{named(r.Alert), int64(r.After / time.Second)})
	}
	m.Data.Subject = subject(m.Data, d)
	m.Data.Text = text(m.Data)
	return m
}

// testMessage is what a user sends to see whether a channel works.
func testMessage(id, clm string, now time.Time) Message {
	clm = alert.Clean(clm, maxSubject)
	return Message{Type: TypeTest, Timestamp: now.UTC(), Data: Data{
		Version: MessageVersion, ID: id, CLM: clm, New: []alert.Alert{}, Worse: []alert.Alert{}, Ongoing: []alert.Alert{}, Recovered: []Recovered{},
		Subject: "edgeclm: a test" + from(clm),
		Text:    "This is a test of edgeclm's notifications" + from(clm) + ". Nothing is wrong, and there is nothing to do.\n",
	}}
}

func from(clm string) string {
	if clm == "" {
		return ""
	}
	return " from " + clm
}

func (m *Message) take(alerts []alert.Alert) []alert.Alert {
	out := []alert.Alert{}
	for i, a := range alerts {
		if i == maxLines {
			m.Data.Omitted += len(alerts) - maxLines
			break
		}
		out = append(out, named(a))
	}
	return out
}

// named bounds the devices that an alert names; Count says how many there are.
func named(a alert.Alert) alert.Alert {
	a.Devices = a.Devices[:min(len(a.Devices), maxNamed)]
	return a
}

// subject is one line: the worst thing in words, and how much more there is.
func subject(m Data, d alert.Digest) string {
	all := append(append(append([]alert.Alert{}, d.New...), d.Worse...), d.Ongoing...)
	if len(all) == 0 {
		return alert.Clean(fmt.Sprintf("edgeclm: recovered%s: %s", from(m.CLM), summaries(m.Recovered)), maxSubject)
	}
	worst := all[0]
	for _, a := range all {
		if a.Severity > worst.Severity {
			worst = a
		}
	}
	more := ""
	if n := len(all) - 1; n > 0 {
		more = fmt.Sprintf(" (and %d more)", n)
	}
	return alert.Clean(fmt.Sprintf("edgeclm: %s%s: %s", worst.Severity, from(m.CLM), worst.Summary), maxSubject-len(more)) + more
}

func summaries(recovered []Recovered) string {
	var kinds []string
	for _, r := range recovered {
		name := string(r.Kind)
		if r.Subject != "" && r.Subject != "fleet" {
			name += " " + r.Subject
		}
		kinds = append(kinds, name)
	}
	return strings.Join(kinds, ", ")
}

// text is the message for people.
func text(m Data) string {
	var b strings.Builder
	section := func(title string, alerts []alert.Alert) {
		if len(alerts) == 0 {
			return
		}
		fmt.Fprintf(&b, "%s\n", title)
		for _, a := range alerts {
			fmt.Fprintf(&b, "\n  %s: %s\n  To do: %s\n", a.Severity, a.Summary, a.Hint)
		}
		b.WriteByte('\n')
	}
	section("New:", m.New)
	section("Worse than before:", m.Worse)
	section("Still so:", m.Ongoing)
	if len(m.Recovered) > 0 {
		b.WriteString("Recovered:\n")
		for _, r := range m.Recovered {
			fmt.Fprintf(&b, "\n  %s (recovered after %s)\n", r.Summary, alert.Span(time.Duration(r.Seconds)*time.Second))
		}
		b.WriteByte('\n')
	}
	if m.Omitted > 0 {
		fmt.Fprintf(&b, "%d more are left out here.\n", m.Omitted)
	}
	fmt.Fprintf(&b, "Alerts open now: %d. See all of it with: clmctl watch --view\n", m.Open)
	return b.String()
}

// body is the JSON form.
func (m Message) body() ([]byte, error) { return json.Marshal(m) }
