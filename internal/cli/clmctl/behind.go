package clmctl

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/provision"
	"github.com/edgeclm/edgeclm/internal/renewal"
	"github.com/edgeclm/edgeclm/internal/store"
)

// Why bundles beside a manifest cannot be queued, and what devices are then.
var (
	errNoBundle    = errors.New("no bundle beside the manifest")
	errOtherBundle = errors.New("not the bundle that the manifest lists")
	errBehind      = errors.New("still behind")
	errNoHash      = errors.New("neither the manifest nor " + bundle.SumsName + " has its hash")
)

// attachBundles reads the bundles of those rows of a delivery (of the same order
// as listed) whose device has, or may have, an earlier identity, from a medium.
// What waits for a device already need not be there any more.
func attachBundles(ctx context.Context, devices inventory, medium string, listed []bundle.Row, delivery store.Delivery) error {
	known := map[string]fleet.Device{}
	for d, err := range devices.ListDevices(ctx, store.Filter{}) {
		if err != nil {
			return err
		}
		known[d.Name] = d
	}
	waiting, err := waitingBundles(ctx, devices)
	if err != nil {
		return err
	}
	var missing []string
	for i, r := range listed {
		d, ok := known[r.Name]
		if !ok {
			d.Identity = r.Identity()
			if e := delivery.Earliest; e.Generation > 0 {
				d.Identity.Epoch, d.Identity.Generation = e.Epoch, e.Generation
			}
		}
		if r.Identity().Compare(d.Identity) <= 0 || r.Identity().Compare(d.Next) < 0 {
			continue
		}
		if w := waiting[r.Name]; w.Version == enrol.BundleVersion(r.Identity()) && w.Digest == r.SHA256 {
			continue
		}
		delivery.Rows[i].Sealed, err = readBundle(filepath.Join(medium, filepath.FromSlash(r.File)), r.SHA256)
		if errors.Is(err, fs.ErrNotExist) {
			if r.Identity() != d.Next {
				missing = append(missing, r.Name)
			}
			continue
		}
		if err != nil {
			return err
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s: %w, for %s", medium, errNoBundle, few(missing))
	}
	return nil
}

// completeHashes gives rows that holders of shares signed, which is before their
// bundles were sealed, the hashes beside the manifest. Nobody signed those: they
// tell a damaged bundle, and a forged one is refused by its device.
func completeHashes(medium string, rows []bundle.Row) error {
	if !slices.ContainsFunc(rows, func(r bundle.Row) bool { return r.SHA256 == bundle.Hash{} }) {
		return nil
	}
	data, err := keyfile.Read(filepath.Join(medium, bundle.SumsName), bundle.MaxSumsSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a manifest by itself adds devices all the same
	}
	if err != nil {
		return err
	}
	sums, err := bundle.ParseSums(data)
	if err != nil {
		return fmt.Errorf("%s: %w", medium, err)
	}
	sums.Complete(rows)
	return nil
}

// readBundle reads the bundle that a signed manifest lists.
func readBundle(path string, sum bundle.Hash) ([]byte, error) {
	sealed, err := keyfile.Read(path, enrol.MaxDelivery)
	if err == nil && sum == (bundle.Hash{}) {
		err = fmt.Errorf("%s: %w", path, errNoHash)
	}
	if err == nil && bundle.Hash(sha256.Sum256(sealed)) != sum {
		err = fmt.Errorf("%s: %w", path, errOtherBundle)
	}
	return sealed, err
}

// waitingBundles returns the bundles that are queued, by the device's name.
func waitingBundles(ctx context.Context, devices inventory) (map[string]enrol.Delivery, error) {
	return waitingOf(ctx, devices, enrol.DeliverBundle)
}

// waitingOf returns what is queued of one kind, by the device's name.
func waitingOf(ctx context.Context, devices inventory, kind enrol.DeliveryKind) (map[string]enrol.Delivery, error) {
	all, err := devices.Outstanding(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]enrol.Delivery{}
	for _, d := range all {
		if d.Kind == kind {
			out[d.Device] = d
		}
	}
	return out, nil
}

// few lists names, the first of them in full.
func few(names []string) string {
	const most = 10
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// commissionResult is the result of commission; its fields are a contract.
type commissionResult struct {
	Added     int          `json:"added"`
	Updated   int          `json:"updated"`
	Unchanged int          `json:"unchanged"`
	Skipped   int          `json:"skipped"`        // rows of an earlier generation than the inventory's
	Queued    int          `json:"queued"`         // bundles, by this run
	Restored  int          `json:"reinstated"`     // devices that are back in service, among those updated
	Retired   int          `json:"decommissioned"` // devices that stay out of service, among those unchanged
	Delivered int          `json:"delivered"`      // devices that have all that was queued for them
	Behind    []behindView `json:"behind"`         // devices of the manifest that have yet to prove their later identity

	Receipt string `json:"receipt"` // path; "" if there is none

	// Probed is who answers at the devices' addresses, if that was asked for.
	Probed []probeView `json:"probed,omitempty"`
}

// ofAnotherRoot stands for the identity of a device whose lifeboat waits.
const ofAnotherRoot = "of the root that is left"

// behindView is a device that has yet to get a bundle.
type behindView struct {
	Name         string  `json:"name"`
	Identity     string  `json:"identity"`      // the one that it proved, or ofAnotherRoot
	NextIdentity string  `json:"next_identity"` // that of the bundle
	Error        *string `json:"error"`         // why it has not got it, if it was tried
}

// whoIsBehind lists the devices, among those listed, whose bundle waits.
func whoIsBehind(ctx context.Context, devices inventory, listed []string, told *report) ([]behindView, error) {
	waiting, err := waitingBundles(ctx, devices)
	if err != nil {
		return nil, err
	}
	boats, err := waitingOf(ctx, devices, enrol.DeliverLifeboat)
	if err != nil {
		return nil, err
	}
	why := map[string]*string{}
	for _, queued := range []map[string]enrol.Delivery{waiting, boats} {
		for name, d := range queued {
			if text := clikit.OneLine(d.LastError); text != "" {
				why[name] = &text
			}
		}
	}
	if told != nil {
		for _, o := range told.Devices {
			if o.Outcome != enrol.OutcomeDelivered {
				why[o.Name] = o.Error
			}
		}
	}
	wanted := map[string]bool{}
	for _, name := range listed {
		wanted[name] = true
	}
	out := []behindView{}
	for d, err := range devices.ListDevices(ctx, store.Filter{}) {
		if err != nil {
			return nil, err
		}
		if _, waits := boats[d.Name]; waits && wanted[d.Name] {
			out = append(out, behindView{d.Name, ofAnotherRoot, cmp.Or(d.Next, d.Identity).String(), why[d.Name]})
		} else if wanted[d.Name] && d.Next != (ibc.Identity{}) {
			out = append(out, behindView{d.Name, d.Identity.String(), d.Next.String(), why[d.Name]})
		}
	}
	return out, nil
}

func (r commissionResult) render(a *app) error {
	if r.Retired > 0 {
		a.note("the manifest lists %s out of service: --reinstate brings back what it lists", devices(r.Retired))
	}
	names := make([]string, len(r.Behind))
	for i, b := range r.Behind {
		names[i] = b.Name
	}
	behind := strconv.Itoa(len(names))
	if len(names) > 0 && a.Output != clikit.FormatCSV {
		behind += " (" + few(names) + ")"
	}
	if r.Probed != nil && a.Output == clikit.FormatCSV {
		return a.renderProbed(r.Probed)
	}
	err := clikit.RenderRecord(a.Out, a.Output, r,
		clikit.Field{Name: "added", Value: strconv.Itoa(r.Added)},
		clikit.Field{Name: "updated", Value: strconv.Itoa(r.Updated)},
		clikit.Field{Name: "unchanged", Value: strconv.Itoa(r.Unchanged)},
		clikit.Field{Name: "skipped", Value: strconv.Itoa(r.Skipped)},
		clikit.Field{Name: "queued", Value: strconv.Itoa(r.Queued)},
		clikit.Field{Name: "delivered", Value: strconv.Itoa(r.Delivered)},
		clikit.Field{Name: "behind", Value: behind},
		clikit.Field{Name: "receipt", Value: r.Receipt})
	if err != nil || r.Probed == nil || a.Output.Structured() {
		return err
	}
	if _, err := fmt.Fprintln(a.Out); err != nil {
		return err
	}
	return a.renderProbed(r.Probed)
}

// err is how commission ends; told is what came of handing over (nil: nothing
// was to be).
func (r commissionResult) err(told *report) error {
	switch {
	case told != nil && len(r.Behind) > 0 && told.interrupted:
		return told.err()
	case told != nil && len(r.Behind) > 0:
		return clikit.WithHint(clikit.WithCode(fmt.Errorf("%s %w", devicesAre(len(r.Behind)), errBehind), clikit.ExitSomeFailed),
			"nothing is lost: what waits is handed over by the next clmctl device deliver, renew or enrol")
	}
	return probeErr(r.Probed)
}

// devicesAre is devices with its verb.
func devicesAre(n int) string {
	if n == 1 {
		return "1 device is"
	}
	return devices(n) + " are"
}

// somethingWaits returns those of the devices for which something is queued.
func somethingWaits(ctx context.Context, devices inventory, names []string) ([]string, error) {
	all, err := devices.Outstanding(ctx)
	if err != nil {
		return nil, err
	}
	waits := map[string]bool{}
	for _, d := range all {
		waits[d.Device] = true
	}
	return slices.DeleteFunc(names, func(name string) bool { return !waits[name] }), nil
}

// deliverTo hands over what waits for devices; with visit it visits also those
// for which nothing does.
func (a *app) deliverTo(ctx context.Context, s *site, identity *provision.Endpoint, devices inventory, names []string, visit bool) (*report, error) {
	dialer, err := a.dialer(s, identity)
	if err != nil {
		return nil, err
	}
	watch, log := a.progress()
	courier := &enrol.Courier{
		Store: devices, Queue: devices, Sightings: devices, Dialer: dialer, Boats: dialer, Params: findParams(dialer.Params), Now: a.Now, Log: log, Visit: visit,
	}
	b := a.batch(s, courier, renewal.Bounds{Devices: s.Concurrency}, watch)
	r := b.run(ctx, &plan{due: jobs(names...)})
	r.delivers = true
	return r, nil
}
