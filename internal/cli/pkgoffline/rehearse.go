package pkgoffline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

type rehearseOptions struct {
	dir               string
	shares, threshold int
	keep              bool
}

func (a *app) rehearseCommand() *cobra.Command {
	var o rehearseOptions
	cmd := &cobra.Command{
		Use:   "rehearse",
		Short: "Go through the whole ceremony on keys that are thrown away",
		Long: `rehearse goes through the life of a PKG with the commands of the real ceremony,
one after the other, each with what it is for: made in shares, checked, keys
issued by shares that are brought together and by holders who stay apart, the
shares given anew and one made again, the medium reconciled, everything verified.
Then it shows that a file that was tampered with and a share of an earlier sharing
are refused.

Nothing of it is real: the keys are drawn for the rehearsal and overwritten at its
end. The PKG is a lab's, every transcript says that it is a rehearsal, and every
name begins with "rehearsal-". On a terminal it waits for Enter before each step.`,
		Example: "  pkg-offline rehearse --yes --lab --shares 3 --threshold 2",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.runRehearse(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "new directory for the rehearsal (default: one for temporary files)")
	f.IntVar(&o.shares, "shares", 5, "number of shares")
	f.IntVar(&o.threshold, "threshold", 3, "how many shares are needed")
	f.BoolVar(&o.keep, "keep", false, "leave the files for a look at them; nothing of them may ever be used")
	return cmd
}

func (a *app) runRehearse(ctx context.Context, o rehearseOptions) (err error) {
	if !a.Yes && (a.NoInput || !clikit.IsTerminal(a.In)) {
		return clikit.WithHint(clikit.Usage("there is nobody to press Enter between the steps"), "give --yes")
	}
	if o.shares < 2 || o.shares > custody.MaxHolders || o.threshold < 2 || o.threshold >= o.shares {
		return clikit.Usage("--shares %d --threshold %d: two or more are needed, of more than that: one is lost and made again", o.shares, o.threshold)
	}
	h := &rehearsal{app: a, rehearseOptions: o}
	if err := h.place(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.clean()) }()
	if err := h.standIns(); err != nil {
		return err
	}
	h.say("REHEARSAL, in %s. Nothing of it is real. The commands are those of the ceremony,\nwhich are given without --lab; what is added here is --lab and --no-input.", h.dir)
	for i, s := range h.steps() {
		if err := h.step(ctx, i+1, s); err != nil {
			return err
		}
	}
	h.say("\nThe rehearsal is over, and every step went as it should.")
	return nil
}

// rehearsal is one that goes on.
type rehearsal struct {
	app *app
	rehearseOptions
}

// step is a command of the ceremony. In its words @ stands for the directory of
// the rehearsal.
type step struct {
	title, why string
	words      []string
	before     func() error // what is done by hand
	after      func() error
	refused    bool // it has to fail
}

func (h *rehearsal) say(format string, args ...any) {
	_, _ = fmt.Fprintf(h.app.Err, format+"\n", args...)
}

// place makes the directory.
func (h *rehearsal) place() error {
	if h.dir == "" {
		var err error
		h.dir, err = os.MkdirTemp("", "pkg-rehearsal-")
		return err
	}
	if _, err := os.Lstat(h.dir); err == nil {
		return clikit.WithHint(fmt.Errorf("%s: %w", h.dir, keyfile.ErrExists), "give a new directory")
	}
	return keyfile.EnsureDir(h.dir)
}

func (h *rehearsal) path(name string) string { return filepath.Join(h.dir, name) }

func (h *rehearsal) holder(i int) string { return fmt.Sprintf("holder-%d", i) }

func (h *rehearsal) share(folder string, i, serial int) string {
	return fmt.Sprintf("@%s/share-%d-%s.s%d.share.age", folder, i, h.holder(i), serial)
}

// standIns makes the age keys of those who are not in the room: the holders, a
// CLM and a device.
func (h *rehearsal) standIns() error {
	names := []string{"clm", "device"}
	for i := range h.shares {
		names = append(names, h.holder(i+1))
	}
	for _, name := range names {
		secret, recipient, err := bundle.GenerateOpener()
		if err != nil {
			return err
		}
		err = errors.Join(
			keyfile.CreateDurable(h.path(name+".key"), append(secret, '\n'), keyfile.SecretPerm),
			keyfile.CreateDurable(h.path(name+".age"), []byte(recipient.String()+"\n"), keyfile.PublicPerm))
		clear(secret)
		if err != nil {
			return err
		}
	}
	return nil
}

// with returns words that give the first shares up to the threshold.
func (h *rehearsal) with(folder string, serial int) []string {
	var words []string
	for i := 1; i <= h.threshold; i++ {
		words = append(words, "--share", h.share(folder, i, serial), "--share-identity-file", "@"+h.holder(i)+".key")
	}
	return words
}

func (h *rehearsal) holders() []string {
	words := []string{"--threshold", fmt.Sprint(h.threshold)}
	for i := 1; i <= h.shares; i++ {
		words = append(words, "--holder", h.holder(i)+"=@"+h.holder(i)+".age")
	}
	return words
}

// step shows a step, waits, and runs it.
func (h *rehearsal) step(ctx context.Context, n int, s step) error {
	h.say("\nStep %d: %s\n  %s", n, s.title, s.why)
	h.say("  $ pkg-offline %s", strings.ReplaceAll(shellWords(s.words), "@", ""))
	if err := h.wait(ctx); err != nil {
		return err
	}
	if s.before != nil {
		if err := s.before(); err != nil {
			return err
		}
	}
	want := clikit.ExitDone
	if s.refused {
		want = clikit.ExitFailed
	}
	code := h.run(s.words)
	if code != want {
		return fmt.Errorf("rehearsal: step %d, %s: the command ended with exit code %d", n, s.title, code)
	}
	if s.refused {
		h.say("  It was refused, as it has to be.")
	}
	if s.after != nil {
		return s.after()
	}
	return nil
}

// shellWords joins words as a shell takes them. None of a rehearsal has a quote.
func shellWords(words []string) string {
	quoted := slices.Clone(words)
	for i, w := range quoted {
		if strings.Contains(w, " ") {
			quoted[i] = "'" + w + "'"
		}
	}
	return strings.Join(quoted, " ")
}

// wait waits for Enter. An interrupt ends the wait, so that the keys are wiped.
func (h *rehearsal) wait(ctx context.Context) error {
	if h.app.Yes {
		return ctx.Err()
	}
	done := make(chan error, 1)
	go func() {
		_, err := clikit.Ask(h.app.Streams, "  Enter to go on: ")
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return errors.New("the rehearsal was interrupted")
	}
}

// run runs a command of the real ceremony, in this process.
func (h *rehearsal) run(words []string) int {
	args := make([]string, 0, len(words)+1)
	for _, w := range words {
		args = append(args, strings.ReplaceAll(w, "@", h.dir+string(filepath.Separator)))
	}
	streams := h.app.Streams
	streams.In = strings.NewReader("")
	deps := h.app.Deps
	deps.Rehearsal = true
	return clikit.Execute(newRoot(streams, deps), append(args, "--lab", "--no-input"), streams)
}

// clean overwrites and removes what the rehearsal has left.
func (h *rehearsal) clean() error {
	if h.keep {
		h.say("The files are in %s. They are worthless; remove them.", h.dir)
		return nil
	}
	err := filepath.WalkDir(h.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return keyfile.Files{}.Wipe(path)
	})
	err = errors.Join(err, os.RemoveAll(h.dir))
	if err == nil {
		h.say("Its keys are overwritten, and %s is removed.", h.dir)
	}
	return err
}
