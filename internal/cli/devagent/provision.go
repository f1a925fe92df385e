package devagent

import (
	"context"
	"encoding/hex"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

func (a *app) provisionCommand() *cobra.Command {
	var k clikit.KeyBundle
	cmd := &cobra.Command{
		Use:   "provision FILE",
		Short: "Take the device's identity from its key bundle",
		Long: `provision opens the key bundle that the PKG made for this device, checks the
PKG's signature, for whom it was sealed, and the key, and keeps it in the data
directory. It prints the params_id, the PKG's root of trust: compare it with
what pkg-offline init printed, or give it with --params-id.

The same bundle again changes nothing. A later one must be of the same PKG and
for the same device.`,
		Example: "  devagent provision usb/dev-plc-0001.e1.g1.bundle.age",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.open(cmd)
			if err != nil {
				return err
			}
			k.Path = args[0]
			return explain(a.provision(cmd.Context(), c, k))
		},
	}
	k.Register(cmd.Flags())
	return cmd
}

// provisioned is the result of provision.
type provisioned struct {
	Identity ibc.Identity `json:"identity"`
	ParamsID string       `json:"params_id"`
	Changed  bool         `json:"changed"`
}

func (a *app) provision(ctx context.Context, c config, k clikit.KeyBundle) error {
	b, err := k.Open(ctx, a.Streams, &a.Common, program, agent.Provisioned(c.DataDir, nil))
	if err != nil {
		return err
	}
	defer b.Key.Destroy()
	changed, err := agent.Provision(c.DataDir, nil, b)
	if err != nil {
		return err
	}
	if !changed {
		a.note("%s was this device's identity already", b.Identity)
	}
	id := b.Params.ID()
	r := provisioned{Identity: b.Identity, ParamsID: hex.EncodeToString(id[:]), Changed: changed}
	return clikit.RenderRecord(a.Out, a.Output, r,
		clikit.Field{Name: "identity", Value: r.Identity.String()},
		clikit.Field{Name: "params_id", Value: r.ParamsID})
}
