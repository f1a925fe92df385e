package clmctl

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) recipientCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "recipient",
		Short: "Print the age recipient to which this CLM's key bundle is sealed",
		Long: `recipient prints one line: the age recipient of this data directory, made on
first use. Take it to the PKG, which seals this CLM's key bundle to it.`,
		Example: "  clmctl recipient > clm.age",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.open(cmd)
			if err != nil {
				return err
			}
			_, recipient, err := s.dir.provision().Recipient()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.Out, recipient)
			return err
		},
	}
}
