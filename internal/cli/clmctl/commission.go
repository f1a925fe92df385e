package clmctl

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/provision"
	"github.com/edgeclm/edgeclm/internal/receipt"
	"github.com/edgeclm/edgeclm/internal/store"
)

type commissionOptions struct {
	manifest, addresses, deliver, earliest string

	probe, dry, reinstate bool

	receipt clikit.Receipt
}

// When bundles of later identities are handed over.
const (
	deliverNow   = "now"
	deliverLater = "later"
	deliverNever = "never"
)

func (a *app) commissionCommand() *cobra.Command {
	var o commissionOptions
	cmd := &cobra.Command{
		Use:   "commission MANIFEST",
		Short: "Take the devices of a signed manifest into the inventory",
		Long: `commission checks the PKG's signature of a manifest and takes its devices into
the inventory. Manifests may be read in any order and as often as you like: the
later identity of a device stays, and its address, labels and names follow the
PKG's later word.

A known device for which the manifest has a later generation or epoch gets its
new bundle over the network: the file is taken from beside the manifest, queued,
and handed over at once to every device that answers. It is sealed to the device
and no secret here. Who is still behind is listed (exit code 3); enrol, renew
and "device deliver" hand over what waits. The earlier identity of a device
stays accepted until it has proved the later one.

With --deliver=later bundles are queued only. With --deliver=never they are not:
carry them by hand; the earlier identities are refused from this moment on. That
is what to do if a device was stolen, or its key may have leaked.

--earliest e1.g1 is for a new inventory, after the old one was lost while bundles
were being handed over: devices that are new here may still have an identity as
early as that, and get the manifest's.

A device that was decommissioned stays out of service, though manifests go on
listing it, until the PKG issues for its name again; its earlier identity is then
refused. --reinstate brings back the devices of the manifest as they were.

--probe then contacts each device of the manifest, by a handshake that changes
nothing there, and says who answers as whom (exit code 3 unless all of them do).
With --dry-run as well the manifest is checked and the devices are contacted, and
nothing is recorded.

--addresses adds or overrides addresses from a CSV file with the header
name,address; an empty address returns to that of the manifest.

A receipt, signed with the CLM's identity key, goes to the folder receipts beside
the manifest, from where pkg-offline receipt takes it. A medium that cannot be
written is no failure: --receipt writes the receipt elsewhere.`,
		Example: "  clmctl commission usb/manifest.json --addresses addresses.csv\n  clmctl commission usb/manifest.json --deliver=later\n  clmctl commission usb/manifest.json --probe --dry-run\n  clmctl commission usb/manifest.json --reinstate",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains([]string{deliverNow, deliverLater, deliverNever}, o.deliver) {
				return clikit.Usage("--deliver: %q is neither now, later nor never", o.deliver)
			}
			s, err := a.openExisting(cmd)
			if err == nil {
				err = o.receipt.Check()
			}
			if err != nil {
				return err
			}
			o.manifest = args[0]
			return explainManifest(a.runCommission(cmd.Context(), s, o))
		},
	}
	f := cmd.Flags()
	o.receipt.Register(f)
	f.StringVar(&o.addresses, "addresses", "", "CSV file with the header name,address")
	f.StringVar(&o.deliver, "deliver", deliverNow, "hand bundles of later identities over now, later or never")
	f.StringVar(&o.earliest, "earliest", "", "the earliest identity that a device may have which is new here, as e1.g1")
	f.BoolVar(&o.probe, "probe", false, "contact each device of the manifest, and say who answers as whom")
	f.BoolVar(&o.reinstate, "reinstate", false, "bring back decommissioned devices of the manifest")
	f.BoolVar(&o.dry, "dry-run", false, "check the manifest, and record and hand over nothing")
	_ = cmd.RegisterFlagCompletionFunc("deliver", cobra.FixedCompletions([]string{deliverNow, deliverLater, deliverNever}, cobra.ShellCompDirectiveNoFileComp))
	registerBatch(cmd)
	return cmd
}

func (a *app) runCommission(ctx context.Context, s *site, o commissionOptions) (err error) {
	identity, err := s.dir.identity()
	if err != nil {
		return err
	}
	defer identity.Destroy()
	m, delivery, told, err := a.readDelivery(o, identity.Accepted())
	if err != nil {
		return err
	}
	if o.dry {
		return a.dryCommission(ctx, s, identity, delivery, o.probe)
	}
	devices, err := s.dir.inventory(ctx, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, devices.Close()) }()
	if delivery.Lifeboat, err = s.dir.lifeboat(identity); err != nil {
		return err
	}
	if err := attachLifeboats(ctx, devices, filepath.Dir(o.manifest), m, delivery); err != nil {
		return err
	}
	if !delivery.Refuse {
		if err := attachBundles(ctx, devices, filepath.Dir(o.manifest), m, delivery); err != nil {
			return err
		}
	}
	n, err := devices.PutDevices(ctx, delivery)
	if err != nil {
		return err
	}
	receipt, err := a.leaveCommissioned(s, o, identity.Key, told, delivery, n)
	if err != nil {
		return err
	}
	listed := make([]string, len(delivery.Rows))
	for i, r := range delivery.Rows {
		listed[i] = r.Identity.Name
	}
	delivered, err := a.deliverWaiting(ctx, s, identity, devices, o.deliver, listed)
	if err != nil {
		return err
	}
	behind, err := whoIsBehind(ctx, devices, listed, delivered)
	if err != nil {
		return err
	}
	r := commissionResult{
		Added: n.Added, Updated: n.Updated, Unchanged: n.Unchanged, Skipped: n.Skipped, Queued: n.Queued, Restored: n.Reinstated, Retired: n.Decommissioned, Behind: behind, Receipt: receipt,
	}
	if delivered != nil {
		r.Delivered = delivered.Delivered
	}
	if o.probe {
		list, err := ofInventory(ctx, devices, delivery)
		if err != nil {
			return err
		}
		if r.Probed, err = a.probeCommissioned(ctx, s, identity, list); err != nil {
			return err
		}
	}
	if o.receipt.Stdout() {
		return r.err(delivered)
	}
	if err := r.render(a); err != nil {
		return err
	}
	return r.err(delivered)
}

// deliverWaiting hands over what waits for devices; the report is nil if nothing
// does, or it is not the time for it.
func (a *app) deliverWaiting(ctx context.Context, s *site, identity *provision.Endpoint, devices inventory, when string, names []string) (*report, error) {
	if when != deliverNow {
		return nil, nil
	}
	waiting, err := somethingWaits(ctx, devices, slices.Sorted(slices.Values(names)))
	if err != nil || len(waiting) == 0 {
		return nil, err
	}
	return a.deliverTo(ctx, s, identity, devices, waiting, false)
}

// readDelivery reads manifest and addresses. The rows of the delivery are those
// of the returned list, in its order. Told is what a receipt says of the manifest.
func (a *app) readDelivery(o commissionOptions, known []*ibc.Params) (rows []bundle.Row, d store.Delivery, told receipt.Commissioned, err error) {
	d = store.Delivery{At: a.Now(), Source: filepath.Base(o.manifest), Refuse: o.deliver == deliverNever, Reinstate: o.reinstate}
	if o.earliest != "" {
		id, err := ibc.ParseIdentity("edgeclm/v1/dev/any/" + o.earliest)
		if err != nil {
			return nil, d, told, clikit.WithHint(clikit.Usage("--earliest: %q is no epoch and generation", o.earliest), "write e1.g1")
		}
		d.Earliest = id
	}
	data, err := keyfile.Read(o.manifest, bundle.MaxManifestSize)
	if err != nil {
		return nil, d, told, clikit.WithCode(err, clikit.ExitUsage)
	}
	m, err := bundle.ParseManifestOf(data, known)
	if errors.Is(err, bundle.ErrParams) {
		err = laterEpoch(data, known, err)
	}
	if err != nil {
		return nil, d, told, fmt.Errorf("%s: %w", o.manifest, err)
	}
	told = receipt.Commissioned{Manifest: sha256.Sum256(data), Ledger: m.Ledger}
	rows = slices.DeleteFunc(m.Rows, func(r bundle.Row) bool { return r.Role != ibc.RoleDevice })
	if err := completeHashes(filepath.Dir(o.manifest), rows); err != nil {
		return nil, d, told, err
	}
	for _, r := range rows {
		key, err := hex.DecodeString(r.PublicKey)
		if err != nil {
			return nil, d, told, fmt.Errorf("%s: the public key of %s: %w", o.manifest, r.Name, err)
		}
		d.Rows = append(d.Rows, store.Row{
			Identity: r.Identity(), PublicKey: key, Address: r.Address, Labels: r.Labels, Names: r.Names, LedgerIndex: r.LedgerIndex,
		})
	}
	if o.addresses == "" {
		return rows, d, told, nil
	}
	d.Source += ", " + filepath.Base(o.addresses)
	csv, err := keyfile.Read(o.addresses, maxAddressFile)
	if err != nil {
		return nil, d, told, clikit.WithCode(err, clikit.ExitUsage)
	}
	if d.Addresses, err = parseAddresses(csv); err != nil {
		return nil, d, told, clikit.WithHint(clikit.Usage("%s: %w", o.addresses, err), "the header is name,address; addresses are host:port")
	}
	return rows, d, told, nil
}

var errLaterEpoch = errors.New("of an epoch that this CLM has no key of yet")

// laterEpoch says of a manifest that is of no known parameters that it claims
// to be of a later epoch.
func laterEpoch(data []byte, known []*ibc.Params, err error) error {
	claimed, parseErr := bundle.ManifestParams(data)
	if parseErr != nil || claimed.Epoch() <= known[len(known)-1].Epoch() {
		return err
	}
	return fmt.Errorf("%w: %w", errLaterEpoch, err)
}

// explainManifest adds to the refusal of a manifest what to do next.
func explainManifest(err error) error {
	switch {
	case errors.Is(err, enrol.ErrNotFound):
		return clikit.WithHint(clikit.WithCode(err, clikit.ExitUsage), "the CSV names a device that neither the inventory nor the manifest has")
	case errors.Is(err, errNoBundle):
		return clikit.WithHint(clikit.WithCode(err, clikit.ExitUsage),
			"copy the PKG's whole medium; or, to carry the bundles by hand and refuse the earlier identities at once, give --deliver=never")
	case errors.Is(err, errNoHash):
		return clikit.WithHint(err, "copy the PKG's whole medium, with its "+bundle.SumsName)
	case errors.Is(err, errOtherBundle):
		return clikit.WithHint(err, "copy the bundles again from the PKG's medium, with their manifest")
	case errors.Is(err, errLaterEpoch):
		return clikit.WithHint(err, "take this CLM's bundle of that epoch first: clmctl init --bundle FILE")
	case errors.Is(err, ibc.ErrSignature):
		return clikit.WithHint(err, "the PKG did not sign this manifest: bring it again from the PKG")
	}
	return explainBundle(err)
}
