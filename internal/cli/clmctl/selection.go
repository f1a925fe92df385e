package clmctl

import (
	"errors"
	"slices"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/store"
)

// selection is which devices a command is about.
type selection struct {
	names     []string
	selectors []string
	all       bool
}

const flagSelector = "selector"

func (o *selection) register(cmd *cobra.Command, withAll bool) {
	f := cmd.Flags()
	f.StringArrayVarP(&o.selectors, flagSelector, "l", nil, "only devices with the label k=v (separate several with ';', or repeat)")
	if withAll {
		f.BoolVar(&o.all, "all", false, "every device of the inventory")
	}
}

// empty reports whether nothing was selected in words.
func (o selection) empty() bool { return len(o.names)+len(o.selectors) == 0 && !o.all }

// filter checks the selection and returns it in the store's form.
func (o selection) filter() (store.Filter, error) {
	if len(o.names) > 0 && (o.all || len(o.selectors) > 0) {
		return store.Filter{}, clikit.Usage("give names, --selector or --all, not names and the others")
	}
	if o.all && len(o.selectors) > 0 {
		return store.Filter{}, clikit.Usage("give --selector or --all, not both")
	}
	f := store.Filter{}
	for _, name := range o.names {
		// A device is known by its asset, too.
		if err := ibc.ValidateName(name); err != nil && fleet.ValidateAsset(name) != nil {
			return f, clikit.WithCode(err, clikit.ExitUsage)
		}
		if !slices.Contains(f.Names, name) {
			f.Names = append(f.Names, name)
		}
	}
	for _, s := range o.selectors {
		labels, err := fleet.ParseLabels(s)
		if err == nil && len(labels) == 0 {
			err = errors.New("it is empty")
		}
		if err != nil {
			return f, clikit.WithHint(clikit.Usage("--selector %q: %w", s, err), "write key=value; separate several with ';'")
		}
		for k, v := range labels {
			if other, twice := f.Labels[k]; twice && other != v {
				return f, clikit.Usage("--selector: no device has %s=%s and %s=%s", k, other, k, v)
			}
			if f.Labels == nil {
				f.Labels = map[string]string{}
			}
			f.Labels[k] = v
		}
	}
	return f, nil
}

// explainUnknown makes of a name that is not in the inventory, or of a device
// that is out of service, a usage error.
func explainUnknown(err error) error {
	if errors.Is(err, enrol.ErrDecommissioned) {
		return clikit.WithHint(clikit.WithCode(err, clikit.ExitUsage), "clmctl device show NAME says since when; clmctl commission --reinstate brings it back")
	}
	if errors.Is(err, enrol.ErrNotFound) {
		return clikit.WithHint(clikit.WithCode(err, clikit.ExitUsage), "clmctl device list shows the names; clmctl commission brings new ones")
	}
	return err
}
