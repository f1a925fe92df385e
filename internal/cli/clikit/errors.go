package clikit

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// codeError gives an error an exit code.
type codeError struct {
	error
	code int
}

func (e codeError) Unwrap() error { return e.error }

// hintError gives an error a hint.
type hintError struct {
	error
	hint string
}

func (e hintError) Unwrap() error { return e.error }

// WithCode makes err end the program with an exit code; nil stays nil.
func WithCode(err error, code int) error {
	if err == nil {
		return nil
	}
	return codeError{err, code}
}

// WithHint adds what to do next, one line without full stop; nil stays nil.
// The outermost hint is shown.
func WithHint(err error, hint string) error {
	if err == nil {
		return nil
	}
	return hintError{err, hint}
}

// Usage is an error of usage or configuration: exit code 2.
func Usage(format string, args ...any) error {
	return WithCode(fmt.Errorf(format, args...), ExitUsage)
}

// ExitCode returns the exit code of err: that of the outermost WithCode, 1
// without one, 0 if err is nil.
func ExitCode(err error) int {
	var e codeError
	switch {
	case err == nil:
		return ExitDone
	case errors.As(err, &e):
		return e.code
	}
	return ExitFailed
}

// Report writes err and its hint, a line each.
func Report(w io.Writer, program string, err error) {
	line(w, program, "error", err.Error())
	if hint := Hint(err); hint != "" {
		line(w, program, "hint", hint)
	}
}

// Warn writes a line that a person should read but that is no failure.
func Warn(w io.Writer, program, text string) { line(w, program, "warning", text) }

// Note writes a line of information that is no result.
func Note(w io.Writer, program, text string) { line(w, program, "note", text) }

func line(w io.Writer, program, kind, text string) {
	_, _ = fmt.Fprintf(w, "%s: %s: %s\n", program, kind, OneLine(text))
}

// OneLine makes text from outside safe to show on one line: line breaks become
// "; ", other control characters are dropped, so that nobody writes to the
// terminal through a name or an error.
func OneLine(text string) string {
	text = strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "; ")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return -1
		}
		return r
	}, text)
}

// Hint returns the hint of err that Report would show, "" if there is none.
func Hint(err error) string {
	var e hintError
	if errors.As(err, &e) {
		return e.hint
	}
	return ""
}
