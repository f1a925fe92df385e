// Package devagent is the command line of devagent, the agent on a device.
//
// Each command is a file of its own; what they share is in app.go. config.go
// reads the configuration of serve, and serve.go joins the agent to the CoAP
// server.
package devagent

import (
	"crypto/rand"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
)

const program = "devagent"

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
	return clikit.Execute(newRoot(s, d), args, s)
}

// Command returns the tree of commands, for the generators of manual pages.
func Command() *cobra.Command { return newRoot(clikit.OSStreams(), Deps{}) }

func newRoot(s clikit.Streams, d Deps) *cobra.Command {
	a := &app{Streams: s, Deps: d}
	root := &cobra.Command{
		Use:   program,
		Short: "Agent on a device: makes its private key, proves, installs its certificate",
		Long: `devagent makes and keeps the private key of a device's certificate. It answers
the CLM over CoAP and DTLS: it makes the certificate signing request, verifies
what the CA issued, and switches the device to it. The private key never leaves
the device.

The way through: recipient, then pkg-offline issue, provision, serve. Services
of the device find the active pair in active/ of the data directory: key.pem,
cert.pem, chain.pem (the certificate and those of its issuers), ca.pem.

Every setting of the configuration file can be given in the environment too, as
DEVAGENT_ and its name in capitals. The file is config.yaml in the data
directory, unless --config names another.

Exit codes: 0 done, 1 failed, 2 usage or configuration, 4 another agent runs on
the data directory.`,
	}
	a.Register(root)
	a.RegisterData(root.PersistentFlags())
	root.AddCommand(a.recipientCommand(), a.provisionCommand(), a.serveCommand(), a.statusCommand(), a.rollbackCommand(), a.resetCommand(),
		clikit.VersionCommand(&a.Common, program))
	return root
}
