// Package clikit is what the command lines of the three programs share: exit
// codes, errors with hints, common flags, secrets, and output formats.
//
// The rules of output: results go to standard output, everything else to
// standard error; an error is one line that says what happened, and one line
// of hint where it is known what to do next; nothing is styled unless standard
// output is a terminal, NO_COLOR is unset and TERM is not dumb.
//
// It links neither viper nor net/http, since pkg-offline must not.
package clikit

import (
	"io"
	"os"

	"golang.org/x/term"
)

// Exit codes of all three programs.
const (
	ExitDone        = 0 // also: nothing was due
	ExitFailed      = 1
	ExitUsage       = 2 // usage or configuration
	ExitSomeFailed  = 3 // some devices failed
	ExitLocked      = 4 // another run holds the lock
	ExitUnavailable = 5 // the CA is unavailable and work is left
)

// Streams are a program's surroundings.
type Streams struct {
	In     io.Reader
	Out    io.Writer
	Err    io.Writer
	Getenv func(string) string
}

// OSStreams are those of the process.
func OSStreams() Streams {
	return Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv}
}

// IsTerminal reports whether a stream is a terminal.
func IsTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Styled reports whether output to w may have escape codes (colour, progress).
func (s Streams) Styled(w io.Writer) bool {
	return IsTerminal(w) && s.Getenv("NO_COLOR") == "" && s.Getenv("TERM") != "dumb"
}
