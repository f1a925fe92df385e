package clikit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/edgeclm/edgeclm/internal/passphrase"
)

// maxSecret bounds a passphrase or challenge, in bytes.
const maxSecret = 4096

// Secret says where a secret comes from.
type Secret struct {
	Path    string // a file or FIFO, "-" for standard input, "" to ask
	Flag    string // the flag that gives Path, as "--passphrase-file"
	What    string // what is asked for, as "passphrase of the PKG"
	Confirm bool   // ask twice
	NoInput bool   // do not ask
	Program string // the program's name, for a warning
	Quiet   bool   // no warning about a file that others can read

	// Opens says that it is a passphrase that opens something: a generated one
	// and a PIN are read in any spelling, and a mistyped one is an error that
	// wraps passphrase.ErrTypo. What seals is read by ReadNewPassphrase.
	Opens bool
}

// ReadSecret reads a secret of 1 to 4,096 bytes; one trailing newline is
// removed. The caller zeroes it after use.
func ReadSecret(ctx context.Context, s Streams, from Secret) ([]byte, error) {
	secret, err := from.read(ctx, s)
	if err != nil || !from.Opens {
		return secret, err
	}
	defer clear(secret)
	canonical, err := passphrase.Canonical(secret)
	if err != nil {
		return nil, fmt.Errorf("read the %s: %w", from.What, err)
	}
	return canonical, nil
}

func (from Secret) read(ctx context.Context, s Streams) ([]byte, error) {
	var secret []byte
	var err error
	switch from.Path {
	case "":
		return from.ask(ctx)
	case "-":
		secret, err = readBounded(s.In)
	default:
		secret, err = from.readFile(s)
	}
	if err != nil {
		return nil, fmt.Errorf("read the %s: %w", from.What, err)
	}
	if line, ok := bytes.CutSuffix(secret, []byte("\n")); ok {
		secret = bytes.TrimSuffix(line, []byte("\r"))
	}
	return secret, from.check(secret)
}

// check refuses and zeroes a secret that is empty or too long.
func (from Secret) check(secret []byte) error {
	switch {
	case len(secret) == 0:
		return Usage("the %s is empty", from.What)
	case len(secret) > maxSecret:
		clear(secret)
		return Usage("the %s has more than %d bytes", from.What, maxSecret)
	}
	return nil
}

func (from Secret) readFile(s Streams) ([]byte, error) {
	f, err := os.Open(from.Path)
	if err != nil {
		return nil, WithCode(err, ExitUsage)
	}
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 && !from.Quiet {
		Warn(s.Err, from.Program, fmt.Sprintf("%s can be read by others (chmod 600 %s)", from.Path, from.Path))
	}
	secret, err := readBounded(f)
	return secret, errors.Join(err, f.Close())
}

func readBounded(r io.Reader) ([]byte, error) {
	// A buffer that never grows leaves no copies behind.
	buf := make([]byte, maxSecret+len("\r\n")+1)
	n, err := io.ReadFull(r, buf)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		clear(buf)
		return nil, err
	}
	return buf[:n], nil
}

// ask prompts on the terminal, which is /dev/tty: standard input may be taken.
func (from Secret) ask(ctx context.Context) ([]byte, error) {
	tty, err := from.terminal()
	if err != nil {
		return nil, err
	}
	defer func() { _ = tty.Close() }()
	first, err := prompt(ctx, tty, "Enter "+from.What+": ")
	if err != nil {
		return nil, err
	}
	if err := from.check(first); err != nil || !from.Confirm {
		return first, err
	}
	return first, from.confirm(ctx, tty, first)
}

// terminal opens the terminal to ask on.
func (from Secret) terminal() (*os.File, error) {
	hint := "give it with " + from.Flag + " FILE, or - for standard input"
	if from.NoInput {
		return nil, WithHint(Usage("the %s is needed and --no-input was given", from.What), hint)
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, WithHint(Usage("the %s is needed and there is no terminal to ask on", from.What), hint)
	}
	return tty, nil
}

// confirm asks for a secret again, and zeroes it on error.
func (from Secret) confirm(ctx context.Context, tty *os.File, first []byte) error {
	second, err := prompt(ctx, tty, "Confirm "+from.What+": ")
	defer clear(second)
	if err == nil && !bytes.Equal(first, second) {
		err = Usage("the two entries differ")
	}
	if err != nil {
		clear(first)
	}
	return err
}

// prompt reads a line without echo; when ctx ends it restores the terminal.
func prompt(ctx context.Context, tty *os.File, text string) ([]byte, error) {
	state, err := term.GetState(int(tty.Fd()))
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(tty, text); err != nil {
		return nil, err
	}
	type answer struct {
		line []byte
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		line, err := term.ReadPassword(int(tty.Fd()))
		done <- answer{line, err}
	}()
	select {
	case a := <-done:
		_, _ = io.WriteString(tty, "\r\n")
		return a.line, a.err
	case <-ctx.Done():
		return nil, errors.Join(errors.New("interrupted"), term.Restore(int(tty.Fd()), state))
	}
}

// Confirm asks a question that is answered yes or no; anything but y or yes
// is no. With yes it is not asked; where it cannot be asked, it is a usage
// error that names --yes.
func (c *Common) Confirm(s Streams, question string) (bool, error) {
	if c.Yes {
		return true, nil
	}
	if c.NoInput || !IsTerminal(s.In) {
		return false, WithHint(Usage("not confirmed: %s", question), "answer with --yes")
	}
	if _, err := fmt.Fprintf(s.Err, "%s [y/N] ", OneLine(question)); err != nil {
		return false, err
	}
	line, err := readLine(s.In)
	if err != nil {
		return false, err
	}
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes", nil
}

// Ask asks for a line of text on a terminal and returns it without white space
// around it.
func Ask(s Streams, question string) (string, error) {
	if _, err := io.WriteString(s.Err, question); err != nil {
		return "", err
	}
	line, err := readLine(s.In)
	return strings.TrimSpace(line), err
}

// readLine reads a short line byte by byte, so that nothing behind it is taken
// from the stream.
func readLine(r io.Reader) (string, error) {
	var out []byte
	for b := make([]byte, 1); len(out) < 256; {
		n, err := r.Read(b)
		if n == 1 && b[0] == '\n' || errors.Is(err, io.EOF) {
			return string(out), nil
		}
		if err != nil {
			return "", err
		}
		out = append(out, b[:n]...)
	}
	return string(out), nil
}
