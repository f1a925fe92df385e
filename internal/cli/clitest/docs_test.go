package clitest_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

const repository = "../../../"

// quoted is a command line in a document.
type quoted struct {
	line    string // of the program, without what the shell does with it
	mention bool   // in a sentence, where arguments may be left out
}

// The forms that command lines have in documents: after a prompt, by cron, as
// another user, and in code spans.
var (
	prompt = regexp.MustCompile(`^\s*(?:\S*[$#]\s+)?(?:until\s+|sudo -u \S+\s+|(?:\S+\s+){5}edgeclm\s+)?((?:clmctl|devagent|pkg-offline)\s.*)$`)
	span   = regexp.MustCompile("`((?:clmctl|devagent|pkg-offline) [^`]+)`")
)

// commandLines returns the command lines of a document in Markdown.
func commandLines(text string) []quoted {
	var found []quoted
	fenced, prose := false, ""
	text = strings.ReplaceAll(text, "\\\n", " ")
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			fenced = !fenced
			continue
		}
		if !fenced {
			prose += line
			continue
		}
		if m := prompt.FindStringSubmatch(strings.TrimRight(line, "\n")); m != nil {
			found = append(found, quoted{line: m[1]})
		}
	}
	for _, m := range span.FindAllStringSubmatch(prose, -1) {
		found = append(found, quoted{strings.ReplaceAll(m[1], "\n", " "), true})
	}
	return found
}

// arguments returns what the program gets of a line, up to where the shell
// takes over.
func arguments(line string) []string {
	var args []string
	for _, w := range words(line) {
		if slices.Contains([]string{"|", "||", "&&", "&", "#", ">>", "2>&1"}, w) || strings.HasPrefix(w, ">/") {
			break
		}
		arg, ends := strings.CutSuffix(w, ";")
		if arg != "…" && arg != "..." {
			args = append(args, arg)
		}
		if ends {
			break
		}
	}
	return args
}

// parse reports what a program would say of a line's form.
func (q quoted) parse() error {
	args := arguments(q.line)
	all := programs()
	root := all[slices.IndexFunc(all, func(c *cobra.Command) bool { return c.Name() == args[0] })]
	root.InitDefaultVersionFlag()
	cmd, rest, err := root.Find(args[1:])
	if err != nil {
		return err
	}
	cmd.InitDefaultHelpFlag()
	err = cmd.ParseFlags(rest)
	if q.mention && err != nil && strings.HasPrefix(err.Error(), "flag needs an argument") {
		return nil
	}
	if err != nil {
		return err
	}
	given := cmd.Flags().Args()
	if cmd.HasSubCommands() && len(given) > 0 {
		return errors.New("no such command: " + given[0])
	}
	if q.mention && len(given) == 0 {
		return nil
	}
	return errors.Join(cmd.ValidateArgs(given), cmd.ValidateRequiredFlags(), cmd.ValidateFlagGroups())
}

// TestDocumentedCommands: what documents tell somebody to type are commands
// that there are, with flags and as many arguments as there are.
func TestDocumentedCommands(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(repository + "docs/*.md")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d documents, %v", len(files), err)
	}
	n := 0
	for _, file := range append(files, repository+"README.md", repository+"SECURITY.md", repository+"contrib/edgeclm.cron") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Ext(file) != ".md" {
			text = []byte("```\n" + string(text) + "```\n")
		}
		for _, q := range commandLines(string(text)) {
			n++
			if err := q.parse(); err != nil {
				t.Errorf("%s: %s: %v", filepath.Base(file), q.line, err)
			}
		}
	}
	if n < 120 {
		t.Errorf("only %d command lines were found", n)
	}
}

// TestDocumentedCommandsFail: the search finds what is no command.
func TestDocumentedCommandsFail(t *testing.T) {
	t.Parallel()
	text := "Try `clmctl renewal`, `clmctl renew --brigde 12h` or `clmctl device lits`.\n\n" +
		"```\nclm$ clmctl device show\n$ until clmctl renew --frce; do sleep 60; done\n*/5 * * * * edgeclm clmctl rnew -q >/dev/null\nclmctl: error: no device was named\n```\n"
	lines := commandLines(text)
	if len(lines) != 6 {
		t.Fatalf("%d command lines: %+v", len(lines), lines)
	}
	for _, q := range lines {
		if err := q.parse(); err == nil {
			t.Errorf("%s passes", q.line)
		}
	}
}

// link is a reference to a file of this repository.
var link = regexp.MustCompile(`\]\(([^):#]+)(?:#[^)]*)?\)`)

// TestLinks: documents refer to files that there are.
func TestLinks(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(repository + "docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, repository+"README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s: %v", filepath.Base(file), err)
			}
		}
	}
}
