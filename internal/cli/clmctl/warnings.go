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
	return slog.New(warner{a: a})
}

// warner writes records of level warning and above as warnings.
type warner struct {
	a     *app
	attrs []slog.Attr
}

// Enabled implements slog.Handler.
func (warner) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

// Handle implements slog.Handler.
func (w warner) Handle(_ context.Context, r slog.Record) error {
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
	for _, x := range w.attrs {
		add(x)
	}
	r.Attrs(add)
	w.a.warn("%s", b.String())
	return nil
}

// WithAttrs implements slog.Handler.
func (w warner) WithAttrs(attrs []slog.Attr) slog.Handler {
	return warner{w.a, append(w.attrs[:len(w.attrs):len(w.attrs)], attrs...)}
}

// WithGroup implements slog.Handler; nobody uses groups here.
func (w warner) WithGroup(string) slog.Handler { return w }
