package devagent

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/agent"
)

func (a *app) recipientCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "recipient",
		Short: "Print the age recipient to which this device's key bundle is sealed",
		Long: `recipient prints one line: the age recipient of this data directory, made on
first use. Take it to the PKG, which seals this device's key bundle to it. With
--seal-to-tpm its private part is encrypted by the TPM of this machine.`,
		Example: "  devagent recipient > plc-0001.age",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.open(cmd)
			if err != nil {
				return err
			}
			if err := agent.CheckReset(c.DataDir); err != nil {
				return explain(err)
			}
			own := agent.Provisioned(c.DataDir, nil, a.keyStores(c)...)
			own.Seal = c.SealToTPM
			_, recipient, err := own.Recipient()
			if err != nil {
				return explain(err)
			}
			_, err = fmt.Fprintln(a.Out, recipient)
			return err
		},
	}
	cmd.Flags().AddFlagSet(new(config).keys())
	cmd.Flags().AddFlagSet(new(config).sealing())
	return cmd
}
