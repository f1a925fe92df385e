package clmctl

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/store"
)

type commissionOptions struct {
	manifest, addresses string
}

func (a *app) commissionCommand() *cobra.Command {
	var o commissionOptions
	cmd := &cobra.Command{
		Use:   "commission MANIFEST",
		Short: "Take the devices of a signed manifest into the inventory",
		Long: `commission checks the PKG's signature of a manifest and takes its devices into
the inventory. Manifests may be read in any order and as often as you like: the
later identity of a device stays, and its address, labels and names follow the
PKG's later word.

--addresses adds or overrides addresses from a CSV file with the header
name,address; an empty address returns to that of the manifest.`,
		Example: "  clmctl commission usb/manifest.json --addresses addresses.csv",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.openExisting(cmd)
			if err != nil {
				return err
			}
			o.manifest = args[0]
			return explainManifest(a.runCommission(cmd.Context(), s, o))
		},
	}
	cmd.Flags().StringVar(&o.addresses, "addresses", "", "CSV file with the header name,address")
	return cmd
}

// commissionResult is the result of commission.
type commissionResult struct {
	Added     int `json:"added"`
	Updated   int `json:"updated"`
	Unchanged int `json:"unchanged"`
	Skipped   int `json:"skipped"` // rows of an earlier generation than the inventory's
}

func (a *app) runCommission(ctx context.Context, s *site, o commissionOptions) (err error) {
	identity, err := s.dir.identity()
	if err != nil {
		return err
	}
	defer identity.Key.Destroy()
	delivery, err := a.readDelivery(o, identity.Params)
	if err != nil {
		return err
	}
	devices, err := s.dir.inventory(ctx, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, devices.Close()) }()
	n, err := devices.PutDevices(ctx, delivery)
	if err != nil {
		return err
	}
	return clikit.RenderRecord(a.Out, a.Output, commissionResult(n),
		clikit.Field{Name: "added", Value: strconv.Itoa(n.Added)},
		clikit.Field{Name: "updated", Value: strconv.Itoa(n.Updated)},
		clikit.Field{Name: "unchanged", Value: strconv.Itoa(n.Unchanged)},
		clikit.Field{Name: "skipped", Value: strconv.Itoa(n.Skipped)})
}

// readDelivery reads manifest and addresses.
func (a *app) readDelivery(o commissionOptions, params *ibc.Params) (store.Delivery, error) {
	d := store.Delivery{At: a.Now(), Source: filepath.Base(o.manifest)}
	data, err := keyfile.Read(o.manifest, bundle.MaxManifestSize)
	if err != nil {
		return d, clikit.WithCode(err, clikit.ExitUsage)
	}
	m, err := bundle.ParseManifest(data, params)
	if err != nil {
		return d, fmt.Errorf("%s: %w", o.manifest, err)
	}
	for _, r := range m.Rows {
		if r.Role != ibc.RoleDevice {
			continue
		}
		d.Rows = append(d.Rows, store.Row{
			Identity: r.Identity(), Address: r.Address, Labels: r.Labels, Names: r.Names, LedgerIndex: r.LedgerIndex,
		})
	}
	if o.addresses == "" {
		return d, nil
	}
	d.Source += ", " + filepath.Base(o.addresses)
	csv, err := keyfile.Read(o.addresses, maxAddressFile)
	if err != nil {
		return d, clikit.WithCode(err, clikit.ExitUsage)
	}
	if d.Addresses, err = parseAddresses(csv); err != nil {
		return d, clikit.WithHint(clikit.Usage("%s: %w", o.addresses, err), "the header is name,address; addresses are host:port")
	}
	return d, nil
}

// explainManifest adds to the refusal of a manifest what to do next.
func explainManifest(err error) error {
	switch {
	case errors.Is(err, enrol.ErrNotFound):
		return clikit.WithHint(clikit.WithCode(err, clikit.ExitUsage), "the CSV names a device that neither the inventory nor the manifest has")
	case errors.Is(err, ibc.ErrSignature):
		return clikit.WithHint(err, "the PKG did not sign this manifest: bring it again from the PKG")
	}
	return explainBundle(err)
}
