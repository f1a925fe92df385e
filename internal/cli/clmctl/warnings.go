package clmctl

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
)

// warnings returns the logger of what goes on beside a command: what goes wrong
// is a warning of the command's own, unless people asked for a log.
func (a *app) warnings() *slog.Logger {
	if a.LogFormat == "json" || a.Verbose {
		return a.Logger(a.Err)
	}
	return slog.New(sayer{say: func(_ slog.Level, text string) { a.warn("%s", text) }})
}

// sayer is a slog.Handler for people who asked for no log: it says records of
// level warning and above in a sentence.
type sayer struct {
	say   func(level slog.Level, text string)
	attrs []slog.Attr
}

// Enabled implements slog.Handler.
func (sayer) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

// Handle implements slog.Handler.
func (s sayer) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(r.Message)
	add := func(x slog.Attr) bool {
		if x.Key == "error" {
			fmt.Fprintf(&b, ": %v", x.Value)
		} else {
			fmt.Fprintf(&b, ", %s %v", x.Key, x.Value)
		}
		return true
	}
	for _, x := range s.attrs {
		add(x)
	}
	r.Attrs(add)
	s.say(r.Level, b.String())
	return nil
}

// WithAttrs implements slog.Handler.
func (s sayer) WithAttrs(attrs []slog.Attr) slog.Handler {
	return sayer{s.say, append(s.attrs[:len(s.attrs):len(s.attrs)], attrs...)}
}

// WithGroup implements slog.Handler; nobody uses groups here.
func (s sayer) WithGroup(string) slog.Handler { return s }
