package clmctl

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/demo"
	"github.com/edgeclm/edgeclm/internal/labpeer"
)

type demoOptions struct {
	ca       string
	keep     bool
	programs string
}

func (a *app) demoCommand() *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole life of a certificate on this machine",
		Long: `demo runs everything once on loopback, in a temporary directory: keys from a PKG,
four devices with four kinds of key, a CA whose certificates live for minutes,
enrolment, renewal, and a check of everything that came of it. It shows the
commands that it runs. pkg-offline and devagent are expected beside clmctl.`,
		Example: "  clmctl demo\n  clmctl demo --ca step-ca",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.runDemo(cmd, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.ca, "ca", demo.LabCA, "the CA: lab (embedded) or step-ca")
	f.BoolVar(&o.keep, "keep", false, "leave the temporary directory behind")
	f.StringVar(&o.programs, "programs", "", "directory of the three programs (default: that of clmctl)")
	_ = cmd.RegisterFlagCompletionFunc("ca", cobra.FixedCompletions([]string{demo.LabCA, demo.StepCA}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) runDemo(cmd *cobra.Command, o demoOptions) error {
	if o.ca != demo.LabCA && o.ca != demo.StepCA {
		return clikit.Usage("--ca: %q is neither %s nor %s", o.ca, demo.LabCA, demo.StepCA)
	}
	if o.programs == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		o.programs = filepath.Dir(self)
	}
	programs, err := filepath.Abs(o.programs)
	if err != nil {
		return err
	}
	err = demo.Run(cmd.Context(), demo.Options{Programs: programs, CA: o.ca, Keep: o.keep, Out: a.Out, Now: a.Now})
	switch {
	case errors.Is(err, demo.ErrProgram):
		return clikit.WithHint(err, "make build puts the three programs into bin/; run bin/clmctl demo")
	case errors.Is(err, labpeer.ErrNotInstalled):
		return clikit.WithHint(err, "make peers builds step-ca")
	}
	return err
}
