package devagent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/control"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/provision"
)

func (a *app) provisionCommand() *cobra.Command {
	var k clikit.KeyBundle
	var r clikit.Receipt
	var firstBoot string
	cmd := &cobra.Command{
		Use:   "provision (FILE | --first-boot DIR)",
		Short: "Take the device's identity from its key bundle",
		Long: `provision opens the key bundle that the PKG made for this device, checks the
PKG's signature, for whom it was sealed, and the key, and keeps it in the data
directory. It prints the params_id, the PKG's root of trust: compare it with
what pkg-offline init printed, or give it with --params-id.

The same bundle again changes nothing. A later one must be of the same PKG and
for the same device; an agent that runs on the data directory takes it at once.

With --first-boot the bundle is the one in a directory, a memory card's boot
partition, and its PIN in a file pin or pin.txt beside it; both are wiped once
the identity is stored. serve does that by itself.

With --seal-to-tpm what is provisioned is encrypted by the TPM of this machine,
which alone can open it: a memory card is worthless elsewhere. Give the flag to
recipient too, so that no key is ever on the card in clear. Given later, here or
to serve, it seals what is there; flash may keep the old blocks, which the next
generation of the key makes worthless. What is sealed stays so.

A receipt, signed with the device's identity key, goes to the folder receipts of
the medium, from where pkg-offline receipt takes it. A medium that cannot be
written is no failure: --receipt writes the receipt elsewhere, now or when the
same command is run again.`,
		Example: `  devagent provision usb/dev-plc-0001.e1.g1.bundle.age
  devagent provision usb/dev-plc-0001.e1.g1.bundle.age --receipt plc-0001.receipt.json
  devagent provision --first-boot /boot/firmware/edgeclm`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.open(cmd)
			if err != nil {
				return err
			}
			if err := r.Check(); err != nil {
				return err
			}
			switch {
			case (firstBoot != "") == (len(args) > 0):
				return clikit.WithHint(clikit.Usage("give either the file of a bundle or --first-boot DIR"), "see devagent provision --help")
			case firstBoot != "":
				return explain(a.provisionFirstBoot(cmd.Context(), c, k, r, firstBoot))
			}
			k.Path, k.ParamsID = args[0], c.ParamsID
			return explain(a.provision(cmd.Context(), c, k, r))
		},
	}
	k.Register(cmd.Flags())
	r.Register(cmd.Flags())
	cmd.Flags().AddFlagSet(new(config).keys())
	cmd.Flags().AddFlagSet(new(config).sealing())
	cmd.Flags().StringVar(&firstBoot, "first-boot", "", "directory with the bundle and its PIN, which are wiped")
	return cmd
}

// provisioned is the result of provision.
type provisioned struct {
	Identity ibc.Identity `json:"identity"`
	ParamsID string       `json:"params_id"`
	Changed  bool         `json:"changed"`
	Receipt  string       `json:"receipt"` // path; "" if there is none
}

func (a *app) provision(ctx context.Context, c config, k clikit.KeyBundle, r clikit.Receipt) error {
	sealed, err := k.Read(ctx, a.Streams, &a.Common, program)
	if err != nil {
		return err
	}
	defer clear(sealed.Passphrase)
	own := agent.Provisioned(c.DataDir, nil, a.keyStores(c)...)
	b, err := k.OpenSealed(sealed, own)
	if err != nil {
		return err
	}
	defer b.Key.Destroy()
	install := agent.Provision
	if c.SealToTPM {
		install = agent.ProvisionSealed
	}
	changed, err := install(c.DataDir, nil, b, a.keyStores(c)...)
	if errors.Is(err, keyfile.ErrLocked) {
		// An agent at work keeps sealed what is; it does not begin to.
		if isSealed, sealedErr := own.Sealed(); c.SealToTPM && !isSealed {
			return cmp.Or(sealedErr, err)
		}
		changed, err = provisionRunning(ctx, c.DataDir, sealed, err)
	}
	if err != nil {
		return err
	}
	if !changed {
		a.note("%s was this device's identity already", b.Identity)
	}
	path, err := a.leaveReceipt(c, r, k.Path, b, changed)
	if err != nil || r.Stdout() {
		return err
	}
	return a.renderProvisioned(b.Identity, b.Params.ID(), changed, path)
}

// leaveReceipt writes the receipt of a bundle that was taken.
func (a *app) leaveReceipt(c config, to clikit.Receipt, path string, b *bundle.Bundle, changed bool) (string, error) {
	clerk := clikit.Clerk{
		Receipt: to, Program: program, Own: agent.Provisioned(c.DataDir, nil), Key: b.Key, Now: a.Now, Random: a.Random,
	}
	return clerk.Leave(a.Streams, path, clikit.Provisioned(b, changed), nil)
}

// provisionRunning has the agent that holds the data directory take a bundle.
func provisionRunning(ctx context.Context, dir string, sealed clikit.SealedBundle, locked error) (changed bool, err error) {
	err = control.Call(ctx, dir, commandProvision, sealed, &changed)
	var refusal *control.Error
	switch {
	case errors.Is(err, control.ErrNotRunning):
		return false, locked // another command, or an agent that just starts
	case errors.As(err, &refusal):
		for _, r := range provisionRefusals() {
			if r.code == refusal.Code {
				return false, &relayed{refusal.Text, r.cause}
			}
		}
	}
	return changed, err
}

// provisionDevice takes a bundle for provisionRunning.
func provisionDevice(ctx context.Context, device *agent.Agent, argument json.RawMessage) (changed bool, err error) {
	var sealed clikit.SealedBundle
	if err := json.Unmarshal(argument, &sealed); err != nil {
		return false, err
	}
	defer clear(sealed.Passphrase)
	b, err := sealed.Open(device.Provisioned())
	if err != nil {
		return false, err
	}
	changed, err = device.Take(ctx, b)
	for _, r := range provisionRefusals() {
		if errors.Is(err, r.cause) {
			return false, &control.Error{Code: r.code, Text: err.Error()}
		}
	}
	return changed, err
}

type provisionRefusal struct {
	code  string // on the control socket
	cause error
}

func provisionRefusals() []provisionRefusal {
	return []provisionRefusal{
		{"not-later", provision.ErrNotLater},
		{"other", provision.ErrOther},
		{"params", bundle.ErrParams},
	}
}

// relayed is an error that an agent at work has reported.
type relayed struct {
	text  string
	cause error
}

func (e *relayed) Error() string { return e.text }
func (e *relayed) Unwrap() error { return e.cause }

func (a *app) renderProvisioned(id ibc.Identity, paramsID bundle.Hash, changed bool, receipt string) error {
	r := provisioned{Identity: id, ParamsID: paramsID.String(), Changed: changed, Receipt: receipt}
	return clikit.RenderRecord(a.Out, a.Output, r,
		clikit.Field{Name: "identity", Value: r.Identity.String()},
		clikit.Field{Name: "params_id", Value: r.ParamsID},
		clikit.Field{Name: "receipt", Value: r.Receipt})
}
