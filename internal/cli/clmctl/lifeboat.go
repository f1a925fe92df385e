package clmctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/lifeboat"
	"github.com/edgeclm/edgeclm/internal/provision"
	"github.com/edgeclm/edgeclm/internal/store"
)

const (
	// lifeboatFile is the statement that led this CLM to its PKG; devices get it
	// with their bundles.
	lifeboatFile = "lifeboat.statement"
	// leftParams names what is public of a PKG that was left: it verifies what
	// devices signed then.
	leftParams = "params.left-%x.json"
)

// boatFile is a lifeboat statement and its encoding.
type boatFile struct {
	signed *lifeboat.Signed
	data   []byte
}

// readLifeboat reads a statement; nil if path is "". Nothing is verified.
func readLifeboat(path string) (*boatFile, error) {
	if path == "" {
		return nil, nil
	}
	data, err := keyfile.Read(path, lifeboat.MaxSize)
	if err != nil {
		return nil, clikit.WithCode(err, clikit.ExitUsage)
	}
	signed, rest, err := lifeboat.Parse(data)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%w: %d bytes behind it", lifeboat.ErrFormat, len(rest))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &boatFile{signed, data}, nil
}

// board makes this CLM one of the PKG that a lifeboat leads to. The statement is
// there before the identity that needs it; the keys of the old root are gone.
func (d dataDir) board(b *bundle.Bundle, boat *boatFile) (changed bool, err error) {
	own, err := d.provision().Load()
	if err == nil {
		defer own.Destroy()
		if _, _, err := own.Heed(boat.signed); err != nil {
			return false, err
		}
		if !own.Params.Equal(b.Params) {
			id := own.Params.ID()
			err = d.writeParamsTo(fmt.Sprintf(leftParams, id[:8]), own.Params)
		}
	}
	if err != nil && !errors.Is(err, provision.ErrNone) {
		return false, err
	}
	if err := keyfile.WriteDurable(d.path(lifeboatFile), boat.data, keyfile.SecretPerm); err != nil {
		return false, err
	}
	if changed, err = d.provision().InstallLifeboat(boat.signed, b); err != nil {
		return false, err
	}
	now, err := d.identity()
	if err != nil {
		return false, err
	}
	defer now.Destroy()
	return changed, d.wipeCredentials(now)
}

// lifeboat returns the statement that led this CLM to its PKG; the zero Lifeboat
// if none did.
func (d dataDir) lifeboat(own *provision.Endpoint) (store.Lifeboat, error) {
	if own.Lifeboat.Serial == 0 {
		return store.Lifeboat{}, nil
	}
	boat, err := readLifeboat(d.path(lifeboatFile))
	if err == nil && (boat.signed.Serial() != own.Lifeboat.Serial || boat.signed.Digest() != own.Lifeboat.Digest) {
		err = fmt.Errorf("%s is not the lifeboat that led here", d.path(lifeboatFile))
	}
	if err != nil {
		return store.Lifeboat{}, clikit.WithHint(err, "run clmctl init with --bundle and --lifeboat again")
	}
	return store.Lifeboat{Serial: uint64(own.Lifeboat.Serial), Statement: boat.data}, nil
}

// attachLifeboats reads the bundles of those rows of a delivery (of the same
// order as listed) whose device has yet to leave its root of trust.
func attachLifeboats(ctx context.Context, devices inventory, medium string, listed []bundle.Row, delivery store.Delivery) error {
	if delivery.Lifeboat.Serial == 0 {
		return nil
	}
	aboard, err := devices.Aboard(ctx, delivery.Lifeboat.Serial)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for d, err := range devices.ListDevices(ctx, store.Filter{Decommissioned: true}) {
		if err != nil {
			return err
		}
		known[d.Name] = true
	}
	var missing []string
	for i, r := range listed {
		if aboard[r.Name] || len(delivery.Rows[i].Sealed) > 0 {
			continue
		}
		sealed, err := readBundle(filepath.Join(medium, filepath.FromSlash(r.File)), r.SHA256)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if known[r.Name] {
				missing = append(missing, r.Name)
			}
			continue
		case err != nil:
			return err
		case len(sealed)+len(delivery.Lifeboat.Statement) > enrol.MaxDelivery:
			return fmt.Errorf("the bundle of %s is too large to be handed over with a lifeboat: carry it there", r.Name)
		}
		delivery.Rows[i].Sealed = sealed
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s: %w, for %s", medium, errNoBundle, few(missing))
	}
	return nil
}
