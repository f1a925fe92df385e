package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func example() *cobra.Command {
	root := &cobra.Command{Use: "tool", Short: "a tool", Long: "It does.\n\n  kept as-is\n\n.not a request"}
	root.PersistentFlags().BoolP("quiet", "q", false, "say nothing")
	sub := &cobra.Command{Use: "do THING", Short: "Do it", Aliases: []string{"act"}, Example: "  tool do x\\y", RunE: func(*cobra.Command, []string) error { return nil }}
	sub.Flags().String("out", "here", "where `FILE` goes")
	root.AddCommand(sub)
	return root
}

// What is committed is what the source says; make generate brings it up to
// date.
func TestCommittedFilesAreCurrent(t *testing.T) {
	t.Chdir("../..")
	files, err := generate(programs()...)
	if err != nil {
		t.Fatal(err)
	}
	if err := compare(files); err != nil {
		t.Error(err)
	}
}

func TestManual(t *testing.T) {
	text := string(manual(example()))
	for _, want := range []string{
		".TH TOOL 1 ", "tool \\- a tool\n", ".nf\n  kept as\\-is\n.fi\n", "\\&.not a request\n",
		"\\fB\\-q\\fR, \\fB\\-\\-quiet\\fR\nsay nothing\n",
		".SS do THING [flags]\nAlso: act.\n.PP\nDo it.\n",
		"\\fB\\-\\-out\\fR \\fIFILE\\fR\nwhere FILE goes (default here)\n", "  tool do x\\ey\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q:\n%s", want, text)
		}
	}
}

func TestCompare(t *testing.T) {
	t.Chdir(t.TempDir())
	files, err := generate(example())
	if err != nil {
		t.Fatal(err)
	}
	if err := compare(files); err == nil {
		t.Error("missing files are current")
	}
	if err := write(files); err != nil {
		t.Fatal(err)
	}
	if err := compare(files); err != nil {
		t.Error(err)
	}
	stray := filepath.Join(man, "old.1")
	if err := os.WriteFile(stray, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := compare(files); err == nil || !strings.Contains(err.Error(), stray) {
		t.Errorf("a stray file gives %v", err)
	}
	if err := write(files); err != nil {
		t.Fatal(err)
	}
	page := filepath.Join(man, "tool.1")
	if err := os.WriteFile(page, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := compare(files); err == nil || !strings.Contains(err.Error(), page) {
		t.Errorf("an old file gives %v", err)
	}
}
