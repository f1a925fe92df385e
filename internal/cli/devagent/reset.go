package devagent

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/provision"
)

func (a *app) resetCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reset",
		Short: "Take keys and identity from this machine",
		Long: `reset overwrites and removes what makes this machine a device: its identity, its
recipient, its certificates and their keys, also those of the consumers that the
configuration lists. config.yaml stays. It refuses while
an agent runs on the data directory; one that was interrupted is finished by
running it again, and nothing starts on what it has left.

It wipes what flash lets it wipe. The controller of a card keeps overwritten
blocks for a while, where who takes it apart may read them. What makes an old key
worthless is not its removal but the next generation of the identity: reset says
how to raise it.`,
		Example: "  devagent reset --yes",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.openExisting(cmd)
			if err != nil {
				return err
			}
			return explain(a.reset(c))
		},
	}
}

// resetDone is the result of reset; identity is null if there was none, or it
// could not be read.
type resetDone struct {
	Identity *ibc.Identity `json:"identity"`
	Revoke   string        `json:"revoke"` // command that raises the generation
}

func (a *app) reset(c config) error {
	// Damaged or half gone, it is wiped as well.
	present, err := agent.Provisioned(c.DataDir, nil, a.keyStores(c)...).Load()
	if err == nil {
		present.Key.Destroy()
	}
	who := "this device"
	if present != nil {
		who = present.Identity.String()
	}
	ok, err := a.Confirm(a.Streams, fmt.Sprintf("Wipe the keys and certificates of %s in %s?", who, c.DataDir))
	if err != nil {
		return err
	}
	if !ok {
		return errors.New("nothing was wiped")
	}
	var with agent.Config
	if err := a.join(c, a.Logger(a.Err), &with); err != nil {
		return clikit.WithCode(err, clikit.ExitUsage)
	}
	if err := agent.Reset(c.DataDir, nil, with.Withdraw); err != nil {
		return err
	}
	a.note("wiped, as far as flash lets it; what ends the old key is the next generation of the identity, from the PKG")
	done := resetDone{Revoke: revocation(present)}
	identity := ""
	if present != nil {
		done.Identity, identity = &present.Identity, present.Identity.String()
	}
	return clikit.RenderRecord(a.Out, a.Output, done,
		clikit.Field{Name: "identity", Value: identity}, clikit.Field{Name: "revoke", Value: done.Revoke})
}

// revocation returns the command that raises the generation; clmctl commission
// of its manifest makes the CLMs refuse the old one.
func revocation(b *provision.Endpoint) string {
	words := []string{"pkg-offline", "issue", "--dir", "PKG", "--out", "MEDIUM"}
	if b == nil {
		return strings.Join(append(words, "--clm", "CLM", "--generation", "N+1", "--pin-sheet", "PINS.txt", "NAME"), " ")
	}
	for _, p := range b.Peers {
		words = append(words, "--clm", p.Name)
	}
	return strings.Join(append(words, "--generation", fmt.Sprint(b.Identity.Generation+1), "--pin-sheet", "PINS.txt", b.Identity.Name), " ")
}
