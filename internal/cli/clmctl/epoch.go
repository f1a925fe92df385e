package clmctl

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/provision"
	"github.com/edgeclm/edgeclm/internal/store"
)

func (a *app) epochCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "epoch",
		Short: "See which devices are behind in an earlier epoch, and close it",
		Long: `An epoch is the time of one master secret of the PKG. After pkg-offline new-epoch
this CLM takes its bundle of the new one (clmctl init), then the manifest brings
those of the devices (clmctl commission). Until an earlier epoch is closed,
devices of either are accepted.`,
	}
	cmd.AddCommand(a.epochShowCommand(), a.epochCloseCommand())
	return cmd
}

func (a *app) epochShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "List the devices that have yet to prove an identity of the present epoch",
		Long: `show lists every device in service whose identity is of an earlier epoch, and why:

  no-bundle  no manifest has brought its bundle of a later epoch
  queued     the bundle waits for the next contact
  failed     it was tried: the last error says what came of it
  paused     the bundle waits until the device is resumed
  closed     its epoch was closed: carry its bundle there by hand

Exit code 3 if there is one.`,
		Example: "  clmctl epoch show\n  clmctl epoch show -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.openExisting(cmd)
			if err != nil {
				return err
			}
			return a.runEpochShow(cmd.Context(), s)
		},
	}
}

func (a *app) runEpochShow(ctx context.Context, s *site) error {
	own, err := s.dir.identity()
	if err != nil {
		return err
	}
	defer own.Destroy()
	var r *epochReport
	err = s.dir.withInventory(ctx, func(devices inventory) error {
		r, err = surveyEpochs(ctx, devices, own)
		return err
	})
	if err != nil {
		return err
	}
	return a.renderEpochs(r)
}

// Why a device is in an earlier epoch.
const (
	behindNoBundle = "no-bundle"
	behindQueued   = "queued"
	behindFailed   = "failed"
	behindPaused   = "paused"
	behindClosed   = "closed"
)

// What an epoch is.
const (
	epochPresent = "present"
	epochOpen    = "open"
	epochClosed  = "closed"
)

// epochReport is the epochs with who is behind; its fields are a contract.
type epochReport struct {
	Epochs []epochView     `json:"epochs"` // oldest first
	Behind []stragglerView `json:"behind"`
}

// epochView is an epoch that this CLM knows.
type epochView struct {
	Epoch    uint32  `json:"epoch"`
	ParamsID string  `json:"params_id"`
	State    string  `json:"state"`
	Identity *string `json:"identity"` // of this CLM; null: it has no key there
	Devices  int     `json:"devices"`  // in service, whose identity is of it
	ClosedAt *string `json:"closed_at"`
	Reason   *string `json:"reason"`
}

// stragglerView is a device that is behind in an earlier epoch.
type stragglerView struct {
	Name         string  `json:"name"`
	Identity     string  `json:"identity"`
	NextIdentity *string `json:"next_identity"` // of the bundle that waits
	Why          string  `json:"why"`
	LastSeen     *string `json:"last_seen"`  // when it was last known to answer
	Tries        int     `json:"tries"`      // to hand the bundle over, that failed
	LastError    *string `json:"last_error"` // of the delivery, or else of the device

	epoch uint32
}

// surveyEpochs goes through the inventory once.
func surveyEpochs(ctx context.Context, devices inventory, own *provision.Endpoint) (*epochReport, error) {
	waiting, err := waitingBundles(ctx, devices)
	if err != nil {
		return nil, err
	}
	r := &epochReport{Epochs: viewEpochs(own), Behind: []stragglerView{}}
	at := map[uint32]*epochView{}
	for i := range r.Epochs {
		at[r.Epochs[i].Epoch] = &r.Epochs[i]
	}
	for d, err := range devices.ListDevices(ctx, store.Filter{}) {
		if err != nil {
			return nil, err
		}
		its := at[d.Identity.Epoch]
		if its != nil {
			its.Devices++
		}
		if d.Identity.Epoch >= own.Identity.Epoch {
			continue
		}
		seen, err := lastSeen(ctx, devices, d)
		if err != nil {
			return nil, err
		}
		closed := its == nil || its.State == epochClosed
		r.Behind = append(r.Behind, straggler(d, waiting[d.Name], seen, closed))
	}
	return r, nil
}

func viewEpochs(own *provision.Endpoint) []epochView {
	view := func(params *ibc.Params, id ibc.Identity, state string) epochView {
		hash := params.ID()
		v := epochView{Epoch: params.Epoch(), ParamsID: hex.EncodeToString(hash[:]), State: state}
		if id != (ibc.Identity{}) {
			v.Identity = optional(id.String())
		}
		return v
	}
	var out []epochView
	for _, past := range own.Earlier {
		v := view(past.Params, past.Identity, epochOpen)
		if !past.Open() {
			v.State, v.ClosedAt, v.Reason = epochClosed, optionalTime(past.Closed), optional(past.Reason)
		}
		out = append(out, v)
	}
	return append(out, view(own.Params, own.Identity, epochPresent))
}

// lastSeen is when a device is known to have answered: it told its trust
// anchors, or activated a certificate.
func lastSeen(ctx context.Context, devices inventory, d fleet.Device) (time.Time, error) {
	seen, err := devices.LastSighting(ctx, d.Name)
	if err != nil {
		return time.Time{}, err
	}
	if d.EnrolledAt.After(seen.At) {
		return d.EnrolledAt, nil
	}
	return seen.At, nil
}

func straggler(d fleet.Device, bundle enrol.Delivery, seen time.Time, closed bool) stragglerView {
	v := stragglerView{
		Name: d.Name, Identity: d.Identity.String(), LastSeen: optionalTime(seen), epoch: d.Identity.Epoch,
		Tries: bundle.Tries, LastError: optional(clikit.OneLine(cmp.Or(bundle.LastError, d.LastError))),
	}
	if d.Next != (ibc.Identity{}) {
		v.NextIdentity = optional(d.Next.String())
	}
	switch {
	case closed:
		v.Why = behindClosed
	case bundle.Version == 0 || bundle.Identity().Epoch <= d.Identity.Epoch:
		v.Why = behindNoBundle
	case d.Paused:
		v.Why = behindPaused
	case bundle.Tries > 0:
		v.Why = behindFailed
	default:
		v.Why = behindQueued
	}
	return v
}

func (a *app) renderEpochs(r *epochReport) error {
	for _, e := range r.Epochs {
		text := fmt.Sprintf("epoch %d (params_id %.16s…) is %s, with %s", e.Epoch, e.ParamsID, e.State, devices(e.Devices))
		if e.ClosedAt != nil {
			text = fmt.Sprintf("epoch %d (params_id %.16s…) was closed at %s, with %s", e.Epoch, e.ParamsID, *e.ClosedAt, devices(e.Devices))
		}
		a.note("%s", text)
	}
	t := clikit.Table{Columns: clikit.Columns("name", "identity", "next_identity", "why", "last_seen", "tries", "last_error")}
	for _, b := range r.Behind {
		t.Rows = append(t.Rows, []string{b.Name, b.Identity, deref(b.NextIdentity), b.Why, deref(b.LastSeen), strconv.Itoa(b.Tries), deref(b.LastError)})
	}
	if err := clikit.Render(a.Out, a.Output, r, t); err != nil || len(r.Behind) == 0 {
		return err
	}
	return clikit.WithHint(clikit.WithCode(fmt.Errorf("%s %w", devicesAre(len(r.Behind)), errBehind), clikit.ExitSomeFailed), r.Behind[0].remedy())
}

// remedy says what brings a device into the present epoch.
func (v stragglerView) remedy() string {
	switch v.Why {
	case behindNoBundle:
		return v.Name + ": commission the manifest that has its bundle of the present epoch, with the bundles beside it"
	case behindPaused:
		return v.Name + ": clmctl device resume, then clmctl device deliver"
	case behindClosed:
		return v.Name + ": carry its bundle there: devagent provision FILE"
	}
	return v.Name + ": clmctl device deliver, as soon as it answers"
}

// behindIn returns the devices that are behind in open epochs up to one.
func (r *epochReport) behindIn(epoch uint32) (out []stragglerView) {
	for _, b := range r.Behind {
		if b.epoch <= epoch && b.Why != behindClosed {
			out = append(out, b)
		}
	}
	return out
}
