package devagent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/pin"
	"github.com/edgeclm/edgeclm/internal/provision"
	"github.com/edgeclm/edgeclm/internal/tpm"
)

// app is what all commands share.
type app struct {
	clikit.Common
	clikit.Streams
	Deps
}

// open reads the configuration, which names the data directory; that may not
// exist yet. Settings of the output take effect at once.
func (a *app) open(cmd *cobra.Command) (config, error) {
	c, err := loadConfig(cmd.Flags(), a.Streams)
	if err != nil {
		return config{}, clikit.WithCode(err, clikit.ExitUsage)
	}
	a.LogFormat = c.LogFormat
	return c, a.Output.Set(c.Output)
}

// openExisting is open for commands that make no data directory.
func (a *app) openExisting(cmd *cobra.Command) (config, error) {
	c, err := a.open(cmd)
	if err != nil {
		return c, err
	}
	return c, c.existing()
}

// existing returns an error of usage if there is no data directory.
func (c config) existing() error {
	info, err := os.Stat(c.DataDir)
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "open", Path: c.DataDir, Err: fs.ErrInvalid}
	}
	if err != nil {
		return clikit.WithHint(clikit.Usage("no data directory: %w", err),
			"give --data-dir, or make one with devagent recipient and devagent provision")
	}
	return nil
}

// explain adds to an error what to do next, and the exit code where it is not
// 1.
func explain(err error) error {
	for _, e := range []struct {
		cause error
		code  int
		hint  string
	}{
		{keyfile.ErrLocked, clikit.ExitLocked, "stop the devagent serve that runs on this data directory"},
		{agent.ErrReset, clikit.ExitFailed, "finish it with devagent reset"},
		{agent.ErrNoAgent, clikit.ExitUsage, "give the device's --data-dir"},
		{agent.ErrSeveral, clikit.ExitFailed, "leave the one of this device there"},
		{agent.ErrNeedsPIN, clikit.ExitFailed, "put the PIN of the sheet into a file pin.txt beside the bundle"},
		{pin.ErrTypo, clikit.ExitFailed, "compare it with the PIN sheet: there is no letter O, I, L or U in a PIN"},
		{pin.ErrForm, clikit.ExitFailed, "write the PIN as the sheet has it, as plain text"},
		{agent.ErrNoPrevious, clikit.ExitFailed, hintNoPrevious},
		{provision.ErrNone, clikit.ExitUsage, "devagent provision FILE takes the device's identity from its key bundle"},
		{provision.ErrOther, clikit.ExitFailed, "take the bundle that the PKG issued for this device"},
		{provision.ErrNotLater, clikit.ExitFailed, "the PKG issues the next generation with --generation N"},
		{bundle.ErrPassphrase, clikit.ExitFailed, "check the passphrase or PIN with whoever issued the bundle"},
		{bundle.ErrParams, clikit.ExitFailed, "use the bundle of the PKG that this device belongs to"},
		{bundle.ErrRecipient, clikit.ExitFailed, "have it issued to this device's own recipient: devagent recipient"},
		{ibc.ErrSignature, clikit.ExitFailed, "the file is no work of this PKG: bring it again from the PKG"},
		{ibc.ErrKey, clikit.ExitFailed, "the file is no work of this PKG: bring it again from the PKG"},
		{bundle.ErrFormat, clikit.ExitFailed, "bring the file again from the PKG"},
		{bundle.ErrVersion, clikit.ExitFailed, "install a later release of devagent"},
		{tpm.ErrOther, clikit.ExitFailed, "put the device's own TPM and card together again, or provision it anew"},
		{provision.ErrSealed, clikit.ExitFailed, "it was sealed by a TPM: name it with --tpm-device"},
		{tpm.ErrUnavailable, clikit.ExitFailed, "check --tpm-device, and that this user may open it (group tss in Debian)"},
		{agent.ErrState, clikit.ExitFailed, "the data directory is damaged: bring it back from a copy, or provision a new one"},
		{provision.ErrFile, clikit.ExitFailed, "the data directory is damaged: bring it back from a copy, or provision a new one"},
	} {
		if errors.Is(err, e.cause) {
			return clikit.WithHint(clikit.WithCode(err, e.code), e.hint)
		}
	}
	return err
}

func (a *app) note(format string, args ...any) {
	if !a.Quiet {
		clikit.Note(a.Err, program, fmt.Sprintf(format, args...))
	}
}
