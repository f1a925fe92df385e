// Command gendocs writes what is generated from the command lines: completions
// for shells, and manual pages. Run it from the repository's root; with -check
// it writes nothing and fails if a committed file is not what it would write.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clmctl"
	"github.com/edgeclm/edgeclm/internal/cli/devagent"
	"github.com/edgeclm/edgeclm/internal/cli/pkgoffline"
)

// The folders that hold generated files only.
const (
	completions = "completions"
	man         = "man"
)

func main() {
	check := flag.Bool("check", false, "compare instead of writing")
	flag.Parse()
	act := write
	if *check {
		act = compare
	}
	files, err := generate(programs()...)
	if err == nil {
		err = act(files)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gendocs:", err)
		os.Exit(1)
	}
}

// programs are the trees of commands.
func programs() []*cobra.Command {
	return []*cobra.Command{clmctl.Command(), devagent.Command(), pkgoffline.Command()}
}

// generate returns the files' contents by path.
func generate(programs ...*cobra.Command) (map[string][]byte, error) {
	files := make(map[string][]byte)
	for _, root := range programs {
		var bash, zsh, fish bytes.Buffer
		err := errors.Join(
			root.GenBashCompletionV2(&bash, true),
			root.GenZshCompletion(&zsh),
			root.GenFishCompletion(&fish, true),
		)
		if err != nil {
			return nil, fmt.Errorf("generate completions of %s: %w", root.Name(), err)
		}
		base := filepath.Join(completions, root.Name())
		files[base+".bash"], files[base+".zsh"], files[base+".fish"] = bash.Bytes(), zsh.Bytes(), fish.Bytes()
		files[filepath.Join(man, root.Name()+".1")] = manual(root)
	}
	return files, nil
}

func write(files map[string][]byte) error {
	for _, dir := range []string{completions, man} {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // part of the source tree
			return err
		}
	}
	for path, content := range files {
		if err := os.WriteFile(path, content, 0o644); err != nil { //nolint:gosec // part of the source tree
			return err
		}
	}
	return nil
}

func compare(files map[string][]byte) error {
	var stale []error
	for _, path := range slices.Sorted(maps.Keys(files)) {
		committed, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if !bytes.Equal(committed, files[path]) {
			stale = append(stale, fmt.Errorf("%s is not current: run make generate", path))
		}
	}
	for _, dir := range []string{completions, man} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, entry := range entries {
			path := filepath.Join(dir, entry.Name())
			if _, generated := files[path]; !generated {
				stale = append(stale, fmt.Errorf("%s is not generated: remove it", path))
			}
		}
	}
	return errors.Join(stale...)
}
