// Command docgen writes the manual pages and shell completions of the three
// programs from their trees of commands, into man/ and completions/ of the
// repository. A test keeps what is committed in step with the source.
//
//go:generate go run . ../..
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clmctl"
	"github.com/edgeclm/edgeclm/internal/cli/pkgoffline"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "docgen:", err)
		os.Exit(1)
	}
}

// directories are those that are generated, whole.
func directories() []string { return []string{"man", "completions"} }

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("usage: docgen REPOSITORY")
	}
	files, err := generate()
	if err != nil {
		return err
	}
	for _, dir := range directories() {
		if err := os.RemoveAll(filepath.Join(args[0], dir)); err != nil {
			return err
		}
	}
	for name, content := range files {
		path := filepath.Join(args[0], name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := keyfile.WriteDurable(path, content, keyfile.PublicPerm); err != nil {
			return err
		}
	}
	return nil
}

// roots are the trees of commands of the programs.
func roots() []*cobra.Command {
	return []*cobra.Command{pkgoffline.Command(), clmctl.Command()}
}

// generate returns all files by their path in the repository.
func generate() (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, root := range roots() {
		root.InitDefaultHelpCmd()
		root.InitDefaultCompletionCmd()
		for name, write := range map[string]func(io.Writer) error{
			root.Name() + ".bash": func(w io.Writer) error { return root.GenBashCompletionV2(w, true) },
			"_" + root.Name():     root.GenZshCompletion,
			root.Name() + ".fish": func(w io.Writer) error { return root.GenFishCompletion(w, true) },
		} {
			var b bytes.Buffer
			if err := write(&b); err != nil {
				return nil, fmt.Errorf("completion %s: %w", name, err)
			}
			files["completions/"+name] = b.Bytes()
		}
		pages(root, files)
	}
	return files, nil
}
