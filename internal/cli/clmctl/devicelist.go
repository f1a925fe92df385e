package clmctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/store"
)

type listOptions struct {
	selection
	search []string
	states []string
	sort   string
	last   bool // sort backwards
}

func (a *app) deviceListCommand() *cobra.Command {
	var o listOptions
	cmd := &cobra.Command{
		Use:   "list [NAME...]",
		Short: "List the devices with their certificates",
		Long: `list shows the devices that are named, that have labels (--selector), that have a
term anywhere (--search: name, identity, address, asset, labels, the certificate's
serial, subject, issuer and hash, the last error), or that are in one of some
states (--state):

  operational      own a valid certificate     due          are to be renewed now
  not-operational  own none                    failing      their last try failed
  expired          owned one                   quarantined  are left alone after failures
  behind           a later bundle waits        paused       are left alone as you asked
  decommissioned   are out of service

All that is given has to hold; of several states one is enough. Devices that are
out of service are listed if they are named, or with --state decommissioned.`,
		Example: `  clmctl device list
  clmctl device list --selector line=3 -o json
  clmctl device list --state failing --state quarantined --sort next_attempt
  clmctl device list --search press --search 10.3.0.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.names = args
			return a.runDeviceList(cmd, o)
		},
	}
	o.register(cmd, false)
	f := cmd.Flags()
	f.StringArrayVar(&o.search, "search", nil, "only devices that have this anywhere, in upper or lower case (repeat for more)")
	f.StringArrayVar(&o.states, "state", nil, "only devices in this state (repeat for more)")
	f.StringVar(&o.sort, "sort", "name", "sort by "+strings.Join(sortKeys(), ", "))
	f.BoolVar(&o.last, "reverse", false, "sort backwards")
	_ = cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(deviceStates(), cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(sortKeys(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (o listOptions) check() error {
	for _, s := range o.states {
		if !slices.Contains(deviceStates(), s) {
			return clikit.WithHint(clikit.Usage("--state: %q is no state", s), "states are "+strings.Join(deviceStates(), ", "))
		}
	}
	if !slices.Contains(sortKeys(), o.sort) {
		return clikit.Usage("--sort: %q is none of %s", o.sort, strings.Join(sortKeys(), ", "))
	}
	if slices.Contains(o.search, "") {
		return clikit.Usage("--search: the term is empty")
	}
	return nil
}

func (a *app) runDeviceList(cmd *cobra.Command, o listOptions) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	f, err := o.filter()
	if err != nil {
		return err
	}
	f.Decommissioned = len(f.Names) > 0 || slices.Contains(o.states, stateDecommissioned)
	s, err := a.openExisting(cmd)
	if err != nil {
		return err
	}
	inventory, err := s.dir.inventory(cmd.Context(), true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inventory.Close()) }()
	now := a.Now()
	found, err := o.find(cmd.Context(), inventory, f, now)
	if err != nil {
		return explainUnknown(err)
	}
	return explainUnknown(clikit.RenderSeq(a.Out, a.Output, deviceColumns(), func(yield func(clikit.Element, error) bool) {
		for d, err := range found {
			var x clikit.Element
			switch {
			case err != nil:
			case a.Output.Structured():
				x.Value = viewDevice(d, now)
			default:
				x.Row = viewPlainly(d, now).row()
			}
			if !yield(x, err) {
				return
			}
		}
	}))
}

// find yields what is wanted, in the order that is wanted. Only another order
// than that of the names takes memory for all of it.
func (o listOptions) find(ctx context.Context, inventory inventory, f store.Filter, now time.Time) (iter.Seq2[fleet.Device, error], error) {
	wanted := o.wanted(readAhead(inventory.ListDevices(ctx, f)), now)
	if o.sort == "name" && !o.last {
		return wanted, nil
	}
	all, err := store.Collect(wanted)
	if err != nil {
		return nil, err
	}
	compare := sortBy(o.sort, now)
	slices.SortStableFunc(all, func(a, b fleet.Device) int {
		if o.last {
			a, b = b, a
		}
		return cmp.Or(compare(a, b), cmp.Compare(a.Name, b.Name))
	})
	return func(yield func(fleet.Device, error) bool) {
		for _, d := range all {
			if !yield(d, nil) {
				return
			}
		}
	}, nil
}

// wanted passes on the devices that have all terms and one of the states.
func (o listOptions) wanted(devices iter.Seq2[fleet.Device, error], now time.Time) iter.Seq2[fleet.Device, error] {
	if len(o.search)+len(o.states) == 0 {
		return devices
	}
	terms := make([]string, len(o.search))
	for i, term := range o.search {
		terms[i] = strings.ToLower(term)
	}
	return func(yield func(fleet.Device, error) bool) {
		for d, err := range devices {
			if err == nil && (!hasTerms(d, terms) || !hasState(d, o.states, now)) {
				continue
			}
			if !yield(d, err) {
				return
			}
		}
	}
}

// hasTerms reports whether a device has every term in one of its fields. Terms
// are in lower case.
func hasTerms(d fleet.Device, terms []string) bool {
	if len(terms) == 0 {
		return true
	}
	fields := []string{d.Identity.String(), d.Address, d.Asset, fleet.FormatLabels(d.Labels), d.LastError}
	if c := d.Certificate; c != nil {
		fields = append(fields, c.Serial, c.Subject, c.Issuer, fmt.Sprintf("%x", c.SHA256))
	}
	if d.Next != (ibc.Identity{}) {
		fields = append(fields, d.Next.String())
	}
	// No term holds a line break, so none is found across two fields.
	text := strings.ToLower(strings.Join(fields, "\n"))
	for _, term := range terms {
		if !strings.Contains(text, term) {
			return false
		}
	}
	return true
}

// The states that can be asked for, beside those of the paper's flag.
const (
	stateDue         = "due"
	stateFailing     = "failing"
	stateExpired     = "expired"
	stateQuarantined = "quarantined"
	statePaused      = "paused"
	stateBehind      = "behind"

	stateDecommissioned = "decommissioned"
)

func deviceStates() []string {
	return []string{
		string(fleet.Operational), string(fleet.NotOperational), stateDue, stateFailing, stateExpired, stateQuarantined, statePaused, stateBehind,
		stateDecommissioned,
	}
}

// hasState reports whether a device is in one of some states, any device if
// there are none.
func hasState(d fleet.Device, states []string, now time.Time) bool {
	if len(states) == 0 {
		return true
	}
	if !d.InService() {
		return slices.Contains(states, stateDecommissioned)
	}
	flag := d.State(now)
	return slices.ContainsFunc(states, func(state string) bool {
		switch state {
		case stateDue:
			return !d.Paused && !d.Quarantined && d.Certificate != nil && d.Due(now)
		case stateFailing:
			return d.LastError != ""
		case stateExpired:
			return d.Certificate != nil && flag != fleet.Operational
		case stateQuarantined:
			return d.Quarantined
		case statePaused:
			return d.Paused
		case stateBehind:
			return d.Next != (ibc.Identity{})
		}
		return string(flag) == state
	})
}

func sortKeys() []string {
	return []string{"name", "state", "not_after", "renew_at", "next_attempt", "enrolled_at", "attempts", "address", "asset"}
}

// sortBy compares devices by a key; those that have no value come last.
func sortBy(key string, now time.Time) func(a, b fleet.Device) int {
	text := func(get func(fleet.Device) string) func(a, b fleet.Device) int {
		return func(a, b fleet.Device) int {
			x, y := get(a), get(b)
			return cmp.Or(-cmp.Compare(boolInt(x != ""), boolInt(y != "")), cmp.Compare(x, y))
		}
	}
	at := func(get func(fleet.Device) time.Time) func(a, b fleet.Device) int {
		return func(a, b fleet.Device) int {
			x, y := get(a), get(b)
			return cmp.Or(-cmp.Compare(boolInt(!x.IsZero()), boolInt(!y.IsZero())), x.Compare(y))
		}
	}
	switch key {
	case "state":
		return text(func(d fleet.Device) string { return string(d.State(now)) + " " + viewPlainly(d, now).note() })
	case "not_after":
		return at(func(d fleet.Device) time.Time {
			if d.Certificate == nil {
				return time.Time{}
			}
			return d.Certificate.NotAfter
		})
	case "renew_at":
		return at(func(d fleet.Device) time.Time { return d.RenewAt })
	case "next_attempt":
		return at(func(d fleet.Device) time.Time { return d.NextAttempt })
	case "enrolled_at":
		return at(func(d fleet.Device) time.Time { return d.EnrolledAt })
	case "attempts":
		return func(a, b fleet.Device) int { return cmp.Compare(b.Attempts, a.Attempts) }
	case "address":
		return text(func(d fleet.Device) string { return d.Address })
	case "asset":
		return text(func(d fleet.Device) string { return d.Asset })
	}
	return text(func(d fleet.Device) string { return d.Name })
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
