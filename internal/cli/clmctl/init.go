package clmctl

import (
	"context"
	"encoding/hex"
	"errors"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/lifeboat"
	"github.com/edgeclm/edgeclm/internal/provision"
)

func (a *app) initCommand() *cobra.Command {
	var boat string
	var k clikit.KeyBundle
	var r clikit.Receipt
	cmd := &cobra.Command{
		Use:   "init --bundle FILE",
		Short: "Take this CLM's identity from its key bundle",
		Long: `init opens the key bundle that the PKG made for this CLM, checks the PKG's
signature and the key, and keeps it in the data directory. It prints the
params_id, the PKG's root of trust: compare it with what pkg-offline init
printed, or give it with --params-id.

With --lifeboat the bundle is of another PKG, to which a statement of the recovery
key leads that this CLM's own bundle has fixed: the master secret is lost or
stolen. Keys of the old PKG are gone then, inventory and certificates stay; the
next commission brings the lifeboat to the devices of its manifest.

The same bundle again changes nothing. A bundle of a later generation replaces
the identity; devices then refuse the earlier one. A bundle of a later epoch of
the same PKG becomes the identity beside the one that is there: devices of either
epoch are accepted until clmctl epoch close.

A receipt, signed with the CLM's identity key, goes to the folder receipts of the
medium, from where pkg-offline receipt takes it. A medium that cannot be written
is no failure: --receipt writes the receipt elsewhere.`,
		Example: `  clmctl init --bundle usb/clm-clm-1.e1.g1.bundle.age
  clmctl init --bundle usb/clm-clm-1.e1.g1.bundle.age --lifeboat usb/lifeboat-1.statement`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.open(cmd)
			if err == nil {
				err = r.Check()
			}
			if err != nil {
				return err
			}
			return explainBundle(a.runInit(cmd.Context(), s, k, boat, r))
		},
	}
	cmd.Flags().StringVar(&k.Path, "bundle", "", "the key bundle of this CLM")
	cmd.Flags().StringVar(&boat, "lifeboat", "", "the lifeboat statement that leads from this CLM's PKG to that of the bundle")
	k.Register(cmd.Flags())
	r.Register(cmd.Flags())
	_ = cmd.MarkFlagRequired("bundle")
	return cmd
}

// initResult is the result of init.
type initResult struct {
	Identity ibc.Identity `json:"identity"`
	ParamsID string       `json:"params_id"`
	Changed  bool         `json:"changed"`
	Receipt  string       `json:"receipt"` // path; "" if there is none
}

func (a *app) runInit(ctx context.Context, s *site, k clikit.KeyBundle, boatFile string, to clikit.Receipt) error {
	boat, err := readLifeboat(boatFile)
	if err != nil {
		return err
	}
	b, err := k.Open(ctx, a.Streams, &a.Common, program, s.dir.provision())
	if err != nil {
		return err
	}
	defer b.Key.Destroy()
	changed, err := a.install(s.dir, b, boat)
	if err != nil {
		return err
	}
	if !changed {
		a.note("%s was this CLM's identity already", b.Identity)
	}
	path, err := a.clerk(s, to, b.Key).Leave(a.Streams, k.Path, clikit.Provisioned(b, changed), nil)
	if err != nil || to.Stdout() {
		return err
	}
	id := b.Params.ID()
	r := initResult{Identity: b.Identity, ParamsID: hex.EncodeToString(id[:]), Changed: changed, Receipt: path}
	return clikit.RenderRecord(a.Out, a.Output, r,
		clikit.Field{Name: "identity", Value: r.Identity.String()},
		clikit.Field{Name: "params_id", Value: r.ParamsID},
		clikit.Field{Name: "receipt", Value: r.Receipt})
}

// clerk writes the receipts of this CLM.
func (a *app) clerk(s *site, to clikit.Receipt, key *ibc.PrivateKey) clikit.Clerk {
	return clikit.Clerk{Receipt: to, Program: program, Own: s.dir.provision(), Key: key, Now: a.Now, Random: a.Random}
}

// install keeps the bundle's content and makes what is derived from it. A run
// that was cut is finished by running it again.
// A lifeboat leads to it from another root of trust; nil: there is none.
func (a *app) install(d dataDir, b *bundle.Bundle, boat *boatFile) (changed bool, err error) {
	unlock, err := d.lock()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if boat != nil {
		changed, err = d.board(b, boat)
	} else {
		changed, err = d.provision().Install(b)
	}
	if err != nil {
		return false, err
	}
	if err := d.writeParams(b.Params); err != nil {
		return false, err
	}
	own, err := d.identity()
	if err != nil {
		return false, err
	}
	defer own.Destroy()
	_, err = d.credentials(own, a.Random)
	return changed, err
}

// explainBundle adds to the refusal of a bundle what to do next.
func explainBundle(err error) error {
	for _, e := range []struct {
		cause error
		hint  string
	}{
		{provision.ErrOther, "take the bundle that the PKG issued with --role clm for this CLM"},
		{lifeboat.ErrSerial, "take the lifeboat that was made last"},
		{lifeboat.ErrRecoveryKey, "take the lifeboat from the PKG that this CLM belongs to; what its first bundle fixed is the only key that counts"},
		{lifeboat.ErrSignature, "bring the statement again from the new PKG"},
		{lifeboat.ErrFormat, "bring the statement again from the new PKG"},
		{provision.ErrNotLater, "the PKG issues the next generation with --generation N"},
		{bundle.ErrPassphrase, "check the passphrase with whoever issued the bundle"},
		{bundle.ErrParams, "use the bundle of the PKG that this CLM belongs to"},
		{bundle.ErrRecipient, "have it issued to this CLM's own recipient: clmctl recipient"},
		{ibc.ErrSignature, "the file is no work of this PKG: bring it again from the PKG"},
		{ibc.ErrKey, "the file is no work of this PKG: bring it again from the PKG"},
		{bundle.ErrFormat, "bring the file again from the PKG"},
		{bundle.ErrVersion, "install a later release of clmctl"},
	} {
		if errors.Is(err, e.cause) {
			return clikit.WithHint(err, e.hint)
		}
	}
	return err
}
