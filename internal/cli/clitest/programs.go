// Package clitest gives the tests of several programs together the programs.
package clitest

import (
	"crypto/rand"
	"os"
	"time"

	"github.com/edgeclm/edgeclm/internal/airgap"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/cli/clmctl"
	"github.com/edgeclm/edgeclm/internal/cli/devagent"
	"github.com/edgeclm/edgeclm/internal/cli/pkgoffline"
)

// alone is this machine, found air-gapped; what the program denies itself is real.
type alone struct{ airgap.Machine }

// Facts tells of nothing that speaks against opening a secret.
func (alone) Facts() (airgap.Facts, error) { return airgap.Facts{}, nil }

// Programs are the three programs, for testscript.Main, which makes them of the
// test binary; exit is os.Exit. The PKG finds its machine air-gapped, and its
// passphrases are not slow to guess.
func Programs(exit func(code int)) map[string]func() {
	return map[string]func(){
		"clmctl":   func() { exit(clmctl.Main(os.Args[1:], clikit.OSStreams())) },
		"devagent": func() { exit(devagent.Main(os.Args[1:], clikit.OSStreams())) },
		"pkg-offline": func() {
			exit(pkgoffline.MainWith(os.Args[1:], clikit.OSStreams(), pkgoffline.Deps{
				Now: time.Now, Random: rand.Reader, WorkFactor: 10,
				AirGap: alone{},
			}))
		},
	}
}
