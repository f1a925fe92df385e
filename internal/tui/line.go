package tui

import (
	"strings"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/renewal"
)

// Line writes an event as one plain line, for pipes and terminals that cannot
// do more: time (RFC 3339, UTC), device, kind, state, class, message, duration.
// It has no control characters and no line break.
func Line(e renewal.Entry) string {
	fields := []string{e.At.UTC().Format(time.RFC3339), clean(e.Device, false), clean(string(e.Kind), false)}
	if e.State != "" {
		fields = append(fields, clean(string(e.State), false))
	}
	text := eventText(e.Event)
	if e.Class != "" && text != "" {
		text = string(e.Class) + ": " + text
	}
	if text != "" {
		fields = append(fields, clean(text, false))
	}
	if e.Took > 0 {
		fields = append(fields, "("+took(e.Took)+")")
	}
	return strings.Join(fields, "  ")
}

// eventText is what an event says beside its kind.
func eventText(e enrol.Event) string {
	if e.Message == "" && e.Kind == enrol.EventProgress {
		return string(e.State) + " done"
	}
	return e.Message
}
