package clikit

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Names of the common flags, for those who bind them to a configuration.
const (
	FlagConfig    = "config"
	FlagDataDir   = "data-dir"
	FlagOutput    = "output"
	FlagNoInput   = "no-input"
	FlagYes       = "yes"
	FlagQuiet     = "quiet"
	FlagVerbose   = "verbose"
	FlagLogFormat = "log-format"
)

// Common are the flags that every command takes.
type Common struct {
	Config    string // of clmctl and devagent only
	DataDir   string // likewise
	Output    Format
	NoInput   bool
	Yes       bool
	Quiet     bool
	Verbose   bool
	LogFormat string
}

// Register adds the flags that all three programs have to a root command.
func (c *Common) Register(root *cobra.Command) {
	f := root.PersistentFlags()
	c.Output = FormatTable
	f.VarP(&c.Output, FlagOutput, "o", "output format: table, wide, json, yaml or csv")
	f.BoolVar(&c.NoInput, FlagNoInput, false, "never ask; fail where an answer is needed")
	f.BoolVar(&c.Yes, FlagYes, false, "answer yes to every question")
	f.BoolVarP(&c.Quiet, FlagQuiet, "q", false, "no notes on standard error")
	f.BoolVarP(&c.Verbose, FlagVerbose, "v", false, "more on standard error")
	c.LogFormat = "text"
	f.Var((*choice)(&c.LogFormat), FlagLogFormat, "format of log lines: text or json")
	_ = root.RegisterFlagCompletionFunc(FlagOutput, cobra.FixedCompletions(formats(), cobra.ShellCompDirectiveNoFileComp))
	_ = root.RegisterFlagCompletionFunc(FlagLogFormat, cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// RegisterData adds --config and --data-dir.
func (c *Common) RegisterData(f *pflag.FlagSet) {
	f.StringVar(&c.Config, FlagConfig, "", "configuration file")
	f.StringVar(&c.DataDir, FlagDataDir, "", "directory of state and keys")
}

// Logger returns the program's logger: warnings and errors, with -v everything.
func (c *Common) Logger(w io.Writer) *slog.Logger {
	level := slog.LevelInfo
	switch {
	case c.Verbose:
		level = slog.LevelDebug
	case c.Quiet:
		level = slog.LevelWarn
	}
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// choice is the value of --log-format.
type choice string

func (c *choice) String() string { return string(*c) }
func (c *choice) Type() string   { return "format" }
func (c *choice) Set(s string) error {
	if s != "text" && s != "json" {
		return Usage("%q is neither text nor json", s)
	}
	*c = choice(s)
	return nil
}

// Kinds of data directory, named as in their paths.
const (
	DataCLM   = "clm"
	DataAgent = "agent"
)

// VariableDataDir names the data directory of clmctl in the environment.
const VariableDataDir = "CLM_DATA_DIR"

// ResolveDataDir returns the data directory of a kind: the flag, else the
// environment (CLM_DATA_DIR, DEVAGENT_DATA_DIR), else the configuration file's
// word ("" if none), else the default: /var/lib/edgeclm/<kind> for root,
// $XDG_STATE_HOME/edgeclm/<kind> (~/.local/state without one) for others.
// It makes nothing.
func ResolveDataDir(kind, flag, configured string, s Streams) (string, error) {
	variable := VariableDataDir
	if kind == DataAgent {
		variable = "DEVAGENT_DATA_DIR"
	}
	for _, dir := range []string{flag, s.Getenv(variable), configured} {
		if dir != "" {
			return filepath.Clean(dir), nil
		}
	}
	if os.Geteuid() == 0 {
		return filepath.Join("/var/lib/edgeclm", kind), nil
	}
	// The XDG base directory specification: a relative path is ignored.
	if state := s.Getenv("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "edgeclm", kind), nil
	}
	home := s.Getenv("HOME")
	if !filepath.IsAbs(home) {
		return "", WithHint(Usage("no home directory to keep state in"), "give --data-dir")
	}
	return filepath.Join(home, ".local", "state", "edgeclm", kind), nil
}
