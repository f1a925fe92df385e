package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is committed is what the source says; go generate ./internal/docgen
// brings it up to date.
func TestCommittedFilesAreCurrent(t *testing.T) {
	t.Parallel()
	files, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	const repository = "../.."
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(repository, name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not current (%v): run go generate ./internal/docgen", name, err)
		}
	}
	for _, dir := range directories() {
		err := fs.WalkDir(os.DirFS(repository), dir, func(path string, e fs.DirEntry, err error) error {
			if err == nil && !e.IsDir() && files[path] == nil {
				t.Errorf("%s is of no command any more: run go generate ./internal/docgen", path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	files, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	page := string(files["man/clmctl-renew.1"])
	for _, want := range []string{`.TH "CLMCTL\-RENEW" 1`, `.B \-\-if\-locked string`, ".SH COMMON OPTIONS", `.BR clmctl (1)`} {
		if !strings.Contains(page, want) {
			t.Errorf("clmctl-renew.1 lacks %q", want)
		}
	}
	for name, content := range files {
		if !strings.HasPrefix(name, "man/") {
			continue
		}
		for line := range strings.Lines(string(content)) {
			if strings.HasPrefix(line, "'") {
				t.Errorf("%s: the line %q is a request by accident", name, line)
			}
		}
	}
}
