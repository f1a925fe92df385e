// Package clmctl is the command line of clmctl, the Certificate Lifecycle
// Management (CLM) side.
//
// Each command is a file of its own: an options struct, the cobra command that
// fills it, and a run function. What they share is in app.go; config.go reads
// the configuration, datadir.go and authority.go the data directory, and
// wire.go puts the adapters together into an enrol.Runner. A run over many
// devices is batch.go.
package clmctl

import (
	"crypto/rand"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/scep"
)

const program = "clmctl"

// Deps are what the program takes from its machine; tests hand in their own.
type Deps struct {
	Now    func() time.Time
	Random io.Reader
}

// Main runs the program with its arguments (without its name) and returns the
// exit code.
func Main(args []string, s clikit.Streams) int {
	return MainWith(args, s, Deps{Now: time.Now, Random: rand.Reader})
}

// MainWith is Main with other dependencies.
func MainWith(args []string, s clikit.Streams, d Deps) int {
	if err := scep.Configure(); err != nil {
		clikit.Report(s.Err, program, fmt.Errorf("configure the PKCS#7 library: %w", err))
		return clikit.ExitFailed
	}
	return clikit.Execute(newRoot(s, d), args, s)
}

// Command returns the tree of commands, for the generators of manual pages.
func Command() *cobra.Command { return newRoot(clikit.OSStreams(), Deps{}) }

func newRoot(s clikit.Streams, d Deps) *cobra.Command {
	a := &app{Streams: s, Deps: d}
	root := &cobra.Command{
		Use:   program,
		Short: "Certificate lifecycle management of edgeclm",
		Long: `clmctl keeps the inventory of a plant's devices, and obtains and renews their
X.509 certificates at the corporate CA on their behalf. Devices and CLM prove
their identities to each other by keys that the PKG made for their names; no
private key of a certificate ever leaves its device.

The way through: recipient, then pkg-offline issue, init, ca add, commission,
enrol; from then on renew, by cron or a systemd timer.

Exit codes: 0 done (also: nothing was due), 1 failed, 2 usage or configuration,
3 some devices failed, 4 another run holds the lock, 5 the CA is unavailable and
work is left.`,
	}
	a.Register(root)
	a.RegisterData(root.PersistentFlags())
	root.AddCommand(
		a.recipientCommand(), a.initCommand(), a.commissionCommand(),
		a.enrolCommand(), a.renewCommand(), a.runCommand(), a.watchCommand(), a.runwayCommand(), a.deviceCommand(), a.epochCommand(), a.caCommand(), a.labCACommand(),
		a.identityCommand(), a.discoverCommand(), a.notifyCommand(), a.doctorCommand(), a.configCommand(), a.demoCommand(), clikit.VersionCommand(&a.Common, program),
	)
	a.completeFromInventory(root)
	return root
}
