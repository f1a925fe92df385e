package clmctl

import (
	"encoding/hex"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

type identityOptions struct {
	role              string
	epoch, generation uint32
}

func (a *app) identityCommand() *cobra.Command {
	var o identityOptions
	cmd := &cobra.Command{
		Use:   "identity NAME",
		Short: "Print the identity string of a name, and its public key",
		Long: `identity computes what anybody can: the canonical identity string of a name,
and the public key Q that follows from it. It needs no data directory.`,
		Example: "  clmctl identity plc-0001 --role dev --epoch 1 --generation 1",
		Args:    cobra.ExactArgs(1),
		RunE:    func(_ *cobra.Command, args []string) error { return a.runIdentity(o, args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&o.role, "role", string(ibc.RoleDevice), "role: dev or clm")
	f.Uint32Var(&o.epoch, "epoch", 1, "epoch of the master secret")
	f.Uint32Var(&o.generation, "generation", 1, "generation of the key")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions([]string{"dev", "clm"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// identityResult is the result of identity.
type identityResult struct {
	Identity  ibc.Identity `json:"identity"`
	PublicKey string       `json:"public_key"`
}

func (a *app) runIdentity(o identityOptions, name string) error {
	id, err := ibc.NewIdentity(ibc.Role(o.role), name, o.epoch, o.generation)
	if err != nil {
		return clikit.WithCode(err, clikit.ExitUsage)
	}
	q := id.PublicKey()
	r := identityResult{Identity: id, PublicKey: hex.EncodeToString(q[:])}
	return clikit.RenderRecord(a.Out, a.Output, r,
		clikit.Field{Name: "identity", Value: id.String()}, clikit.Field{Name: "public_key", Value: r.PublicKey})
}
