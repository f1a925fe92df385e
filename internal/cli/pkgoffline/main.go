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

	"github.com/edgeclm/edgeclm/internal/airgap"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/pkgen"
	"github.com/edgeclm/edgeclm/internal/transcript"
)

// Deps are what the program takes from its machine; tests hand in their own.
type Deps struct {
	Now        func() time.Time
	Random     io.Reader
	AirGap     AirGap                                       // what cuts the process off, and tells of the machine
	WorkFactor int                                          // scrypt log2(N); 0: age's default
	Machine    func() (transcript.Program, transcript.Host) // what runs, and where; nil: as it is
	Layer      keyfile.Layer                                // what files are written through; nil: the operating system
	Rehearsal  bool                                         // nothing of it is real
}

// Main runs the program with its arguments (without its name) and returns the
// exit code.
func Main(args []string, s clikit.Streams) int {
	return MainWith(args, s, Deps{Now: time.Now, Random: rand.Reader, AirGap: airgap.Machine{}})
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
	gate         *gate // nil: not passed
	run          *run  // the one that writes a transcript; nil: none does
	weakAccepted bool  // a passphrase to seal to
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

Run it on a machine without network. No command opens a secret while a network
interface other than loopback is up, a radio is on, or memory may be swapped to
a disk; with --lab they warn instead, and a PKG that was made with --lab
remembers it. With or without, the process denies itself every socket before it
reads a passphrase, for as long as it runs.

The way through: rehearse, with the people of the ceremony; init, in shares
(--threshold and --holder) or to one passphrase; issue, onto a stick; verify it;
receipt, when the stick is back. docs/custody.md is the procedure, to print.

Exit codes: 0 done, 1 failed or does not hold, 2 usage, 3 something is
outstanding (receipt --strict).`,
	}
	a.Register(root)
	root.PersistentFlags().BoolVar(&a.lab, "lab", false, "accept a machine that is not air-gapped; never in production")
	root.AddCommand(
		a.initCommand(), a.issueCommand(), a.anchorCommand(), a.newEpochCommand(),
		a.inspectCommand(), a.verifyCommand(), a.ledgerCommand(), a.receiptCommand(), a.rehearseCommand(),
		a.sharesCommand(), a.lifeboatCommand(), clikit.VersionCommand(&a.Common, program),
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
