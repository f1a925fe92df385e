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
	selection
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
		Use:   "label ({NAME... | --selector k=v} [KEY=VALUE | KEY-]... | --assets FILE.csv)",
		Short: "Say what a device serves, and how it is labelled",
		Long: `label binds a device to an asset: the place or machine that it serves. Spares are
issued by the name of their hardware before anybody knows where they will sit;
whatever takes the name of a device takes its asset too. One asset has one device
at a time. The history keeps who served it when.

KEY=VALUE sets a label over those of the manifest, KEY- takes one away, and
--reset returns to the manifest's; for one device or for several.

--assets takes many bindings from a CSV file with the header name,asset; an empty
asset sets a device free, and assets may be exchanged within one file.

A binding changes no certificate: the device signs the names that its bundle
allows, and nothing else. See {asset} in the profiles of the configuration.`,
		Example: `  clmctl device label hw-b827eb123456 --asset "PRESS 7" line=3
  clmctl device label plc-0001 plc-0002 line=4 cell-
  clmctl device label --selector line=3 hall=north
  clmctl device label --assets plant.csv`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("asset") {
				o.asset = &asset
			}
			o.names, o.labels = splitLabels(args, len(o.selectors) > 0)
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
	o.register(cmd, false)
	f := cmd.Flags()
	f.StringVar(&asset, "asset", "", "what the device serves; empty: nothing")
	f.BoolVar(&o.reset, "reset", false, "return to the labels of the manifest first")
	f.StringVar(&o.assets, "assets", "", "CSV file with the header name,asset")
	return cmd
}

// splitLabels tells names from what to do with their labels. A name has no '=',
// but it may end with '-', so the first word is one in any case; with a selector
// there are none.
func splitLabels(args []string, selected bool) (names, labels []string) {
	for i, arg := range args {
		if selected || i > 0 && (strings.Contains(arg, "=") || strings.HasSuffix(arg, "-")) {
			return args[:i], args[i:]
		}
	}
	return args, nil
}

func (o labelOptions) check() error {
	switch {
	case o.assets != "" && (!o.empty() || o.asset != nil || o.reset || len(o.labels) > 0):
		return clikit.Usage("--assets goes without names and other flags")
	case o.assets == "" && o.empty():
		return clikit.WithHint(clikit.Usage("give the name of a device or --assets FILE.csv"), "see clmctl device label --help")
	case o.assets == "" && o.asset == nil && !o.labelled:
		return clikit.Usage("nothing to change: give --asset, labels or --reset")
	case o.asset != nil && len(o.names) != 1:
		return clikit.Usage("--asset is for one device; --assets FILE.csv binds many")
	}
	_, err := o.filter()
	return err
}

func (a *app) runLabel(ctx context.Context, s *site, o labelOptions) (err error) {
	inventory, err := s.dir.inventory(ctx, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inventory.Close()) }()
	if o.assets != "" {
		return a.bindAll(ctx, inventory, o.assets)
	}
	f, err := o.filter()
	if err != nil {
		return err
	}
	selected, err := store.Collect(inventory.ListDevices(ctx, f))
	if err != nil {
		return err
	}
	for _, d := range selected {
		if err := a.label(ctx, inventory, d, o); err != nil {
			return err
		}
	}
	if len(o.names) == 1 {
		h, err := inventory.History(ctx, selected[0].Name, 1)
		if err != nil {
			return err
		}
		return a.renderDevice(h)
	}
	return a.renderLabelled(ctx, inventory, selected)
}

func (a *app) label(ctx context.Context, devices inventory, d fleet.Device, o labelOptions) error {
	if o.labelled {
		if err := a.setLabels(ctx, devices, d, o); err != nil {
			return err
		}
	}
	if o.asset == nil {
		return nil
	}
	binding := store.Delivery{At: a.Now(), Source: "device label", Assets: []store.Asset{{Device: d.Name, Asset: *o.asset}}}
	_, err := devices.PutDevices(ctx, binding)
	return err
}

// labelledView is the result of label for one of several devices.
type labelledView struct {
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels"`
}

func (a *app) renderLabelled(ctx context.Context, devices inventory, selected []fleet.Device) error {
	if len(selected) == 0 {
		a.note("no device was selected")
	}
	out := []labelledView{}
	t := clikit.Table{Columns: clikit.Columns("name", "labels")}
	for _, d := range selected {
		d, err := devices.Device(ctx, d.Name)
		if err != nil {
			return err
		}
		out = append(out, labelledView{d.Name, d.Labels})
		t.Rows = append(t.Rows, []string{d.Name, fleet.FormatLabels(d.Labels)})
	}
	return clikit.Render(a.Out, a.Output, out, t)
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
