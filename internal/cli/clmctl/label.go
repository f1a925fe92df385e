package clmctl

import (
	"context"
	"errors"
	"maps"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/store"
)

type labelOptions struct {
	name     string
	labels   []string // KEY=VALUE, or KEY- to take one away
	asset    *string  // nil: stays as it is
	reset    bool
	assets   string // CSV file
	labelled bool   // labels or reset were given
}

func (a *app) deviceLabelCommand() *cobra.Command {
	var o labelOptions
	var asset string
	cmd := &cobra.Command{
		Use:   "label (NAME [KEY=VALUE | KEY-]... | --assets FILE.csv)",
		Short: "Say what a device serves, and how it is labelled",
		Long: `label binds a device to an asset: the place or machine that it serves. Spares are
issued by the name of their hardware before anybody knows where they will sit;
whatever takes the name of a device takes its asset too. One asset has one device
at a time. The history keeps who served it when.

KEY=VALUE sets a label over those of the manifest, KEY- takes one away, and
--reset returns to the manifest's.

--assets takes many bindings from a CSV file with the header name,asset; an empty
asset sets a device free, and assets may be exchanged within one file.

A binding changes no certificate: the device signs the names that its bundle
allows, and nothing else. See {asset} in the profiles of the configuration.`,
		Example: `  clmctl device label hw-b827eb123456 --asset "PRESS 7" line=3
  clmctl device label --assets plant.csv`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("asset") {
				o.asset = &asset
			}
			if len(args) > 0 {
				o.name, o.labels = args[0], args[1:]
			}
			o.labelled = o.reset || len(o.labels) > 0
			if err := o.check(); err != nil {
				return err
			}
			s, err := a.openExisting(cmd)
			if err != nil {
				return err
			}
			return explainLabel(a.runLabel(cmd.Context(), s, o))
		},
	}
	f := cmd.Flags()
	f.StringVar(&asset, "asset", "", "what the device serves; empty: nothing")
	f.BoolVar(&o.reset, "reset", false, "return to the labels of the manifest first")
	f.StringVar(&o.assets, "assets", "", "CSV file with the header name,asset")
	return cmd
}

func (o labelOptions) check() error {
	switch {
	case o.assets != "" && (o.name != "" || o.asset != nil || o.reset):
		return clikit.Usage("--assets goes without names and other flags")
	case o.assets == "" && o.name == "":
		return clikit.WithHint(clikit.Usage("give the name of a device or --assets FILE.csv"), "see clmctl device label --help")
	case o.assets == "" && o.asset == nil && !o.labelled:
		return clikit.Usage("nothing to change: give --asset, labels or --reset")
	}
	if o.assets == "" {
		_, err := (selection{names: []string{o.name}}).filter()
		return err
	}
	return nil
}

func (a *app) runLabel(ctx context.Context, s *site, o labelOptions) (err error) {
	devices, err := s.dir.inventory(ctx, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, devices.Close()) }()
	if o.assets != "" {
		return a.bindAll(ctx, devices, o.assets)
	}
	h, err := devices.History(ctx, o.name, 1)
	if err != nil {
		return explainUnknown(err)
	}
	d := h.Device
	if o.labelled {
		if err := a.setLabels(ctx, devices, d, o); err != nil {
			return err
		}
	}
	if o.asset != nil {
		binding := store.Delivery{At: a.Now(), Source: "device label", Assets: []store.Asset{{Device: d.Name, Asset: *o.asset}}}
		if _, err := devices.PutDevices(ctx, binding); err != nil {
			return err
		}
	}
	if h, err = devices.History(ctx, d.Name, 1); err != nil {
		return err
	}
	return a.renderDevice(h)
}

func (a *app) setLabels(ctx context.Context, devices inventory, d fleet.Device, o labelOptions) error {
	action := store.Action{Device: d.Name, At: a.Now(), Reason: strings.Join(o.labels, " ")}
	if o.reset {
		if err := devices.SetLabels(ctx, action, nil); err != nil || len(o.labels) == 0 {
			return err
		}
		var err error
		if d, err = devices.Device(ctx, d.Name); err != nil {
			return err
		}
	}
	labels := maps.Clone(d.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	for _, arg := range o.labels {
		if key, ok := strings.CutSuffix(arg, "-"); ok && !strings.Contains(arg, "=") {
			delete(labels, key)
			continue
		}
		set, err := fleet.ParseLabels(arg)
		if err == nil && len(set) != 1 {
			err = errors.New("it is empty")
		}
		if err != nil {
			return clikit.WithHint(clikit.Usage("label %q: %w", arg, err), "write KEY=VALUE to set one, KEY- to take one away")
		}
		maps.Copy(labels, set)
	}
	return devices.SetLabels(ctx, action, labels)
}

// boundResult is the result of label --assets.
type boundResult struct {
	Updated   int `json:"updated"`
	Unchanged int `json:"unchanged"`
}

func (a *app) bindAll(ctx context.Context, devices inventory, path string) error {
	csv, err := keyfile.Read(path, maxAddressFile)
	if err != nil {
		return clikit.WithCode(err, clikit.ExitUsage)
	}
	d := store.Delivery{At: a.Now(), Source: filepath.Base(path)}
	if d.Assets, err = parseAssets(csv); err != nil {
		return clikit.WithHint(clikit.Usage("%s: %w", path, err), "the header is name,asset")
	}
	n, err := devices.PutDevices(ctx, d)
	if err != nil {
		return err
	}
	return clikit.RenderRecord(a.Out, a.Output, boundResult{n.Updated, n.Unchanged},
		clikit.Field{Name: "updated", Value: strconv.Itoa(n.Updated)},
		clikit.Field{Name: "unchanged", Value: strconv.Itoa(n.Unchanged)})
}

func explainLabel(err error) error {
	switch {
	case errors.Is(err, enrol.ErrNotFound):
		return explainUnknown(err)
	case errors.Is(err, fleet.ErrAsset), errors.Is(err, fleet.ErrLabel):
		return clikit.WithCode(err, clikit.ExitUsage)
	case errors.Is(err, store.ErrInvalid):
		return clikit.WithHint(err, `set the other device free first, with --asset "", or exchange both in one --assets file`)
	}
	return err
}
