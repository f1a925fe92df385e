package clmctl

import (
	"encoding/hex"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

func (a *app) deviceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "device",
		Aliases: []string{"devices"},
		Short:   "Look at the inventory, and act on single devices",
	}
	cmd.AddCommand(a.deviceListCommand(), a.deviceShowCommand(), a.deviceLabelCommand(),
		a.devicePauseCommand(), a.deviceResumeCommand(), a.deviceReleaseCommand(), a.deviceDecommissionCommand(), a.deviceHistoryCommand(), a.deviceDeliverCommand(), a.deviceRollbackCommand())
	return cmd
}

// deviceView is a device as scripts see it; its fields are a contract.
type deviceView struct {
	Name        string            `json:"name"`
	Identity    string            `json:"identity"`
	PublicKey   string            `json:"public_key"`
	Address     *string           `json:"address"`
	Asset       *string           `json:"asset"`
	State       fleet.State       `json:"state"`
	Paused      bool              `json:"paused"`
	Quarantined bool              `json:"quarantined"`
	Labels      map[string]string `json:"labels"`
	Certificate *certificateFacts `json:"certificate"`
	EnrolledAt  *string           `json:"enrolled_at"`
	RenewAt     *string           `json:"renew_at"`
	Attempts    int               `json:"attempts"`
	NextAttempt *string           `json:"next_attempt"`
	LastError   *string           `json:"last_error"`
	// NextIdentity is that of a bundle that waits to be handed over: the device
	// is behind. null if there is none.
	NextIdentity *string `json:"next_identity"`
	// Decommissioned is since when the device is out of service; null: it is not.
	Decommissioned *string `json:"decommissioned_at"`
}

// certificateFacts is what scripts see of a certificate.
type certificateFacts struct {
	Serial    string `json:"serial"`
	Subject   string `json:"subject"`
	Issuer    string `json:"issuer"`
	NotBefore string `json:"not_before"`
	NotAfter  string `json:"not_after"`
	SHA256    string `json:"sha256"`
}

func viewDevice(d fleet.Device, now time.Time) deviceView {
	v := viewPlainly(d, now)
	if v.PublicKey = hex.EncodeToString(d.PublicKey); v.PublicKey == "" {
		q := d.Identity.PublicKey()
		v.PublicKey = hex.EncodeToString(q[:])
	}
	return v
}

// viewPlainly is viewDevice without the public key, which takes longer to make
// than all the rest where it is not on record, and no table shows.
func viewPlainly(d fleet.Device, now time.Time) deviceView {
	v := deviceView{
		Name: d.Name, Identity: d.Identity.String(), Address: optional(d.Address), Asset: optional(d.Asset),
		State: d.State(now), Paused: d.Paused, Quarantined: d.Quarantined, Labels: d.Labels,
		EnrolledAt: optionalTime(d.EnrolledAt), RenewAt: optionalTime(d.RenewAt),
		Attempts: d.Attempts, NextAttempt: optionalTime(d.NextAttempt), LastError: optional(d.LastError),
		Decommissioned: optionalTime(d.Decommissioned),
	}
	if d.Next != (ibc.Identity{}) {
		v.NextIdentity = optional(d.Next.String())
	}
	if v.Labels == nil {
		v.Labels = map[string]string{}
	}
	if d.Certificate != nil {
		facts := viewFacts(*d.Certificate)
		v.Certificate = &facts
	}
	return v
}

func viewFacts(c fleet.Certificate) certificateFacts {
	return certificateFacts{
		Serial: c.Serial, Subject: c.Subject, Issuer: c.Issuer,
		NotBefore: stamp(c.NotBefore), NotAfter: stamp(c.NotAfter), SHA256: hex.EncodeToString(c.SHA256[:]),
	}
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func optionalTime(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	return optional(stamp(t))
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func deviceColumns() []clikit.Column {
	return []clikit.Column{
		{Name: "name"}, {Name: "state"}, {Name: "not_after"}, {Name: "renew_at"}, {Name: "address"}, {Name: "labels"},
		{Name: "note"}, {Name: "serial", Wide: true}, {Name: "subject", Wide: true}, {Name: "issuer", Wide: true},
		{Name: "sha256", Wide: true}, {Name: "enrolled_at", Wide: true}, {Name: "attempts", Wide: true},
		{Name: "next_attempt", Wide: true}, {Name: "last_error", Wide: true}, {Name: "identity", Wide: true}, {Name: "next_identity", Wide: true},
		{Name: "asset", Wide: true}, {Name: "decommissioned_at", Wide: true},
	}
}

func (v deviceView) row() []string {
	var c certificateFacts
	if v.Certificate != nil {
		c = *v.Certificate
	}
	return []string{
		v.Name, string(v.State), c.NotAfter, deref(v.RenewAt), deref(v.Address), fleet.FormatLabels(v.Labels),
		v.note(), c.Serial, c.Subject, c.Issuer,
		c.SHA256, deref(v.EnrolledAt), strconv.Itoa(v.Attempts),
		deref(v.NextAttempt), deref(v.LastError), v.Identity, deref(v.NextIdentity), deref(v.Asset), deref(v.Decommissioned),
	}
}

// note is what a person should see at once.
func (v deviceView) note() string {
	switch {
	case v.Decommissioned != nil:
		return stateDecommissioned
	case v.Quarantined:
		return "quarantined"
	case v.Paused:
		return "paused"
	case v.LastError != nil:
		return "failing"
	case v.NextIdentity != nil:
		return "behind"
	}
	return ""
}

func (a *app) deviceShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "show NAME",
		Short:   "Show one device, by its name or asset",
		Example: "  clmctl device show plc-0001.bilbao",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withHistory(cmd, args[0], 1, a.renderDevice)
		},
	}
}

// deviceRecord is what show shows.
type deviceRecord struct {
	deviceView
	Deliveries []deliveryView `json:"deliveries"`
}

func (a *app) renderDevice(h history) error {
	v := deviceRecord{viewDevice(h.Device, a.Now()), viewDeliveries(h.Deliveries)}
	if a.Output == clikit.FormatCSV {
		return clikit.Render(a.Out, a.Output, v, clikit.Table{Columns: deviceColumns(), Rows: [][]string{v.row()}})
	}
	var c certificateFacts
	if v.Certificate != nil {
		c = *v.Certificate
	}
	return clikit.RenderRecord(a.Out, a.Output, v, []clikit.Field{
		{Name: "name", Value: v.Name}, {Name: "state", Value: string(v.State)}, {Name: "note", Value: v.note()},
		{Name: "identity", Value: v.Identity}, {Name: "public_key", Value: v.PublicKey},
		{Name: "next_identity", Value: deref(v.NextIdentity)}, {Name: "waiting", Value: waitingFor(h.Deliveries)},
		{Name: "address", Value: deref(v.Address)},
		{Name: "asset", Value: deref(v.Asset)}, {Name: "labels", Value: fleet.FormatLabels(v.Labels)},
		{Name: "serial", Value: c.Serial}, {Name: "subject", Value: c.Subject}, {Name: "issuer", Value: c.Issuer},
		{Name: "not_before", Value: c.NotBefore}, {Name: "not_after", Value: c.NotAfter}, {Name: "sha256", Value: c.SHA256},
		{Name: "enrolled_at", Value: deref(v.EnrolledAt)}, {Name: "renew_at", Value: deref(v.RenewAt)},
		{Name: "attempts", Value: strconv.Itoa(v.Attempts)}, {Name: "next_attempt", Value: deref(v.NextAttempt)},
		{Name: "last_error", Value: deref(v.LastError)}, {Name: "decommissioned_at", Value: deref(v.Decommissioned)},
	}...)
}
