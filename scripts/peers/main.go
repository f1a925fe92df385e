// Command peers builds the real servers that tests and the demo speak to, from
// source, into a cache outside the source tree (see internal/labpeer). It does
// nothing for those that are there already. Run it from the repository's root.
//
// Without a network the build fails; that is a notice, and the tests concerned
// are skipped. It is an error with -required or EDGECLM_NO_SKIP=1.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/edgeclm/edgeclm/internal/labpeer"
)

// peer is a program, and the module in this repository that pins it.
type peer struct {
	name, version, module, pkg string
}

func main() {
	required := flag.Bool("required", os.Getenv("EDGECLM_NO_SKIP") == "1", "fail if a peer cannot be built")
	flag.Parse()
	module := filepath.Join("test", "peers")
	peers := []peer{
		{name: labpeer.StepCA, version: labpeer.StepCAVersion, module: module, pkg: "github.com/smallstep/certificates/cmd/step-ca"},
		{name: labpeer.SCEPServer, version: labpeer.SCEPServerVersion, module: module, pkg: "github.com/micromdm/scep/v2/cmd/scepserver"},
	}
	for _, p := range peers {
		if err := p.provide(); err != nil {
			fmt.Fprintf(os.Stderr, "peers: %s %s cannot be built: %v\n", p.name, p.version, err)
			if *required {
				os.Exit(1)
			}
			fmt.Fprintf(os.Stderr, "peers: tests that need %s are skipped\n", p.name)
		}
	}
}

// provide builds the peer unless it is there.
func (p peer) provide() error {
	path, err := labpeer.Path(p.name, p.version)
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fmt.Fprintf(os.Stderr, "peers: building %s %s into %s (once, a few minutes)\n", p.name, p.version, filepath.Dir(path))
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	// Two builds at once must not write one file, and nobody may see half of it.
	temp, err := os.MkdirTemp(filepath.Dir(path), ".build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	built, err := filepath.Abs(filepath.Join(temp, p.name))
	if err != nil {
		return err
	}
	build := exec.Command("go", "build", "-C", p.module, "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", built, p.pkg)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		return err
	}
	return os.Rename(built, path)
}
