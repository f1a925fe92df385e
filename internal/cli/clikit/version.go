package clikit

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// BuildVersion is what a program says about itself.
type BuildVersion struct {
	Version string `json:"version"`
	Commit  string `json:"commit"` // "" if it was not built from a repository
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

// Version reads the version that the Go tool recorded in the binary.
func Version() BuildVersion {
	v := BuildVersion{Version: "unknown", Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if info.Main.Version != "" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v.Commit = s.Value
		}
	}
	return v
}

// VersionCommand is the command "version".
func VersionCommand(c *Common, program string) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  " + program + " version -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := Version()
			if c.Output == FormatTable || c.Output == FormatWide {
				_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s %s (%s, %s/%s)\n", cmd.Root().Name(), v.Version, v.Go, v.OS, v.Arch)
				return err
			}
			return Render(cmd.OutOrStdout(), c.Output, v, Table{
				Columns: Columns("version", "commit", "go", "os", "arch"),
				Rows:    [][]string{{v.Version, v.Commit, v.Go, v.OS, v.Arch}},
			})
		},
	}
}
