// Package pkgoffline is the command line of pkg-offline, the Private Key
// Generator (PKG). It must not link network code (net/http, crypto/tls), which
// a test asserts.
package pkgoffline

import (
	"crypto/rand"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/pkgen"
	"github.com/edgeclm/edgeclm/internal/transcript"
)

// Deps are what the program takes from its machine; tests hand in their own.
type Deps struct {
	Now        func() time.Time
	Random     io.Reader
	Interfaces func() ([]string, error)                     // names of network interfaces that are up, without loopback
	WorkFactor int                                          // scrypt log2(N); 0: age's default
	Machine    func() (transcript.Program, transcript.Host) // what runs, and where; nil: as it is
	Layer      keyfile.Layer                                // what files are written through; nil: the operating system
	Rehearsal  bool                                         // nothing of it is real
}

// Main runs the program with its arguments (without its name) and returns the
// exit code.
func Main(args []string, s clikit.Streams) int {
	return MainWith(args, s, Deps{Now: time.Now, Random: rand.Reader, Interfaces: upInterfaces})
}

// MainWith is Main with other dependencies.
func MainWith(args []string, s clikit.Streams, d Deps) int {
	if d.Machine == nil {
		d.Machine = thisMachine
	}
	return clikit.Execute(newRoot(s, d), args, s)
}

// Command returns the tree of commands, for the generators of manual pages.
func Command() *cobra.Command { return newRoot(clikit.OSStreams(), Deps{}) }

// app is what all commands share.
type app struct {
	clikit.Common
	clikit.Streams
	Deps
	lab          bool
	participants []string
	run          *run // the one that writes a transcript; nil: none does
	weakAccepted bool // a passphrase to seal to
}

const program = "pkg-offline"

func newRoot(s clikit.Streams, d Deps) *cobra.Command {
	a := &app{Streams: s, Deps: d}
	root := &cobra.Command{
		Use:   program,
		Short: "Private Key Generator of edgeclm, for a machine that is connected to nothing",
		Long: `pkg-offline is the Private Key Generator (PKG) of an installation: it holds the
master secret, extracts one identity-based private key per device or CLM, and
seals it into a bundle for a USB stick, with a signed manifest beside them.

Run it on a machine without network: init, issue and anchor refuse to open the master
secret while an interface other than loopback is up. With --lab they warn
instead; a PKG that was made with --lab remembers it.`,
	}
	a.Register(root)
	root.PersistentFlags().BoolVar(&a.lab, "lab", false, "accept a machine that is not air-gapped; never in production")
	root.AddCommand(
		a.initCommand(), a.issueCommand(), a.anchorCommand(), a.newEpochCommand(),
		a.inspectCommand(), a.verifyCommand(), a.ledgerCommand(), a.receiptCommand(),
		a.sharesCommand(), clikit.VersionCommand(&a.Common, program),
	)
	return root
}

// config is that of the PKG in dir.
func (a *app) config(dir string) pkgen.Config {
	return pkgen.Config{
		Dir: dir, Now: a.Now, Random: a.Random, WorkFactor: a.WorkFactor,
		Files: a.files(), Warn: a.warn,
	}
}

// warn tells a person, and the transcript.
func (a *app) warn(text string) {
	clikit.Warn(a.Err, program, text)
	if a.run != nil {
		a.run.warn(text)
	}
}

func (a *app) note(format string, args ...any) {
	if !a.Quiet {
		clikit.Note(a.Err, program, fmt.Sprintf(format, args...))
	}
}

// render writes a result that has one value per name.
func (a *app) render(value any, fields ...clikit.Field) error {
	return clikit.RenderRecord(a.Out, a.Output, value, fields...)
}
