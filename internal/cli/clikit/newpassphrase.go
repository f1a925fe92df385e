package clikit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/passphrase"
)

// NewPassphrase says where a passphrase comes from that something will be
// sealed to.
type NewPassphrase struct {
	Secret
	GenerateTo   string // a new file, for a generated one; "": none
	GenerateFlag string // the flag that gives GenerateTo
	WeakAccepted bool   // warn of a weak one, do not refuse it
	Random       io.Reader
}

// ReadNewPassphrase returns a passphrase to seal something to: from a file, a
// generated one that it writes to a new file, or without either from the
// terminal, where it generates one, shows it once, and has it typed again by
// whoever wrote it down; or lets a person type their own. A generated one is
// written to no other stream.
//
// A weak one is refused; the error wraps passphrase.ErrWeak. The caller zeroes
// the result after use.
func ReadNewPassphrase(ctx context.Context, s Streams, from NewPassphrase) ([]byte, error) {
	switch {
	case from.GenerateTo != "" && from.Path != "":
		return nil, Usage("%s and %s exclude each other", from.Flag, from.GenerateFlag)
	case from.GenerateTo != "":
		return from.generate(s)
	case from.Path == "":
		return from.choose(ctx, s)
	}
	from.Opens = false
	typed, err := ReadSecret(ctx, s, from.Secret)
	if err != nil {
		return nil, err
	}
	defer clear(typed)
	return from.accept(s, typed)
}

// accept holds a passphrase that was typed or filed to what is demanded of one
// to seal to.
func (from NewPassphrase) accept(s Streams, typed []byte) ([]byte, error) {
	secret, err := passphrase.CanonicalNew(typed)
	if err != nil {
		return nil, WithCode(fmt.Errorf("%s: %w", from.What, err), ExitUsage)
	}
	if err := from.Measure(s, secret); err != nil {
		clear(secret)
		return nil, err
	}
	return secret, nil
}

// Measure refuses a passphrase to seal to that is weak, or warns if that is
// accepted. The error wraps passphrase.ErrWeak.
func (from NewPassphrase) Measure(s Streams, secret []byte) error {
	err := passphrase.Check(secret)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("%s: %w", from.What, err)
	if !from.WeakAccepted {
		return WithCode(err, ExitUsage)
	}
	Warn(s.Err, from.Program, fmt.Sprintf("%v; whoever gets hold of what is sealed to it can guess it", err))
	return nil
}

func (from NewPassphrase) generate(s Streams) ([]byte, error) {
	if from.GenerateTo == "-" {
		return nil, WithHint(Usage("%s: a passphrase is not written to standard output", from.GenerateFlag), "give the name of a new file")
	}
	p, err := passphrase.Generate(from.Random)
	if err != nil {
		return nil, err
	}
	line := []byte(p.Text() + "\n")
	defer clear(line)
	if err := keyfile.CreateDurable(from.GenerateTo, line, keyfile.SecretPerm); err != nil {
		return nil, WithCode(fmt.Errorf("%s: %w", from.GenerateFlag, err), ExitUsage)
	}
	if !from.Quiet {
		Note(s.Err, from.Program, fmt.Sprintf("the %s is in %s: keep it apart from what it opens", from.What, from.GenerateTo))
	}
	return []byte(p.Text()), nil
}

// choose offers a generated passphrase on the terminal.
func (from NewPassphrase) choose(ctx context.Context, s Streams) ([]byte, error) {
	tty, err := from.terminal()
	if err != nil {
		return nil, WithHint(err, Hint(err)+"; or have one made: "+from.GenerateFlag+" FILE")
	}
	defer func() { _ = tty.Close() }()
	p, err := passphrase.Generate(from.Random)
	if err != nil {
		return nil, err
	}
	own, err := from.show(ctx, s, tty, p)
	if err != nil {
		return nil, err
	}
	if len(own) == 0 {
		return from.again(ctx, tty, p)
	}
	defer clear(own)
	if err := from.check(own); err != nil {
		return nil, err
	}
	secret, err := from.accept(s, own)
	if err != nil {
		return nil, err
	}
	if err := from.confirm(ctx, tty, own); err != nil {
		clear(secret)
		return nil, err
	}
	return secret, nil
}

// show shows a generated passphrase until Enter is pressed, and returns what
// was typed before that.
func (from NewPassphrase) show(ctx context.Context, s Streams, tty *os.File, p passphrase.Passphrase) ([]byte, error) {
	text := fmt.Sprintf(`A new %s:

    %s

Write it down; it is shown only now. Press Enter when you have it on paper, or
type a passphrase of your own here.
`, from.What, p.Text())
	ask := "Enter, or your own: "
	if _, err := io.WriteString(tty, text); err != nil {
		return nil, err
	}
	own, err := prompt(ctx, tty, ask)
	if s.Getenv("TERM") != "dumb" {
		err = errors.Join(err, erase(tty, text+ask))
	}
	return own, err
}

// erase takes text, and the line break behind it, off the screen again, so that
// it is not typed from there, or read by the next who comes.
func erase(tty *os.File, text string) error {
	width, _, err := term.GetSize(int(tty.Fd()))
	if err != nil || width < 1 {
		width = 80
	}
	lines := 0
	for line := range strings.Lines(text) {
		lines += 1 + max(len(strings.TrimSuffix(line, "\n"))-1, 0)/width
	}
	_, err = fmt.Fprintf(tty, "\x1b[%dA\r\x1b[J", lines)
	return err
}

// tries is how often a generated passphrase may be typed again.
const tries = 3

// again has a generated passphrase typed from the paper.
func (from NewPassphrase) again(ctx context.Context, tty *os.File, p passphrase.Passphrase) ([]byte, error) {
	for range tries {
		typed, err := prompt(ctx, tty, "Type the "+from.What+" from your paper: ")
		if err != nil {
			return nil, err
		}
		got, err := passphrase.Parse(typed)
		clear(typed)
		if got == p {
			return []byte(p.Text()), nil
		}
		why := "that is another one"
		if err != nil {
			why = err.Error()
		}
		if _, err := fmt.Fprintf(tty, "No: %s.\n", why); err != nil {
			return nil, err
		}
	}
	return nil, WithHint(Usage("the %s was not typed as it was shown, so it is not used", from.What), "begin again; another one will be made")
}
