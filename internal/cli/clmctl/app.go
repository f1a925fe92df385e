package clmctl

import (
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
)

// app is what all commands share.
type app struct {
	clikit.Common
	clikit.Streams
	Deps
}

func (a *app) warn(format string, args ...any) {
	clikit.Warn(a.Err, program, fmt.Sprintf(format, args...))
}

func (a *app) note(format string, args ...any) {
	if !a.Quiet {
		clikit.Note(a.Err, program, fmt.Sprintf(format, args...))
	}
}

// site is where a command works: the configuration and the data directory.
type site struct {
	Config
	dir dataDir
}

// open reads the configuration and finds the data directory, which may not
// exist yet. Settings of the output take effect at once.
func (a *app) open(cmd *cobra.Command) (*site, error) {
	c, dir, err := loadConfig(cmd.Flags(), a.Streams)
	if err != nil {
		return nil, clikit.WithCode(err, clikit.ExitUsage)
	}
	a.Output, a.LogFormat, a.NoInput, a.Quiet, a.Verbose = c.Output, c.LogFormat, c.NoInput, c.Quiet, c.Verbose
	return &site{Config: c, dir: dataDir(dir)}, nil
}

// openExisting is open for commands that only read: the data directory must be
// there.
func (a *app) openExisting(cmd *cobra.Command) (*site, error) {
	s, err := a.open(cmd)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(string(s.dir))
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "open", Path: string(s.dir), Err: fs.ErrInvalid}
	}
	if err != nil {
		return nil, clikit.WithHint(clikit.Usage("no data directory: %w", err),
			"give --data-dir, or make one with clmctl recipient and clmctl init")
	}
	return s, nil
}
