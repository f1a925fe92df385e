package clmctl

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
)

// rolloverView is a rollover as it is shown; its fields are a contract.
type rolloverView struct {
	Stage     stage                `json:"stage"`
	Old       string               `json:"old"` // names of the CAs
	New       string               `json:"new"`
	StartedAt string               `json:"started_at"`
	ChangedAt string               `json:"changed_at"` // when the stage began
	Ready     int                  `json:"ready"`      // devices that have acknowledged the stage
	HeldUp    int                  `json:"held_up"`    // devices that have not
	Paused    int                  `json:"paused"`     // devices that are not waited for
	Devices   []rolloverDeviceView `json:"devices"`
}

// rolloverDeviceView is a device in a rollover.
type rolloverDeviceView struct {
	Name         string   `json:"name"`
	Ready        bool     `json:"ready"`
	Paused       bool     `json:"paused"`
	Reason       *string  `json:"reason"` // why it is not ready
	CA           *string  `json:"ca"`     // that its certificate comes from: one of the two, or null
	SeenAt       *string  `json:"seen_at"`
	AnchorSerial uint64   `json:"anchor_serial"`
	Anchors      []string `json:"anchors"` // SHA-256 of what it trusted when it was seen
}

// view judges every device by what is on record. why has what went wrong in
// visits of this run.
func (w *rollingSite) view(ctx context.Context, t *turnover, why map[string]string) (*rolloverView, error) {
	v := &rolloverView{
		Stage: t.Stage, Old: t.old.Name, New: t.next.Name,
		StartedAt: stamp(t.StartedAt), ChangedAt: stamp(t.ChangedAt), Devices: []rolloverDeviceView{},
	}
	for _, d := range w.fleet {
		seen, err := w.devices.LastSighting(ctx, d.Name)
		if err != nil {
			return nil, err
		}
		from, err := w.issuer(ctx, t, d)
		if err != nil {
			return nil, err
		}
		one := rolloverDeviceView{
			Name: d.Name, Paused: d.Paused, CA: optional(from), SeenAt: optionalTime(seen.At),
			AnchorSerial: seen.Serial, Anchors: []string{},
		}
		for _, a := range seen.Anchors {
			one.Anchors = append(one.Anchors, hex.EncodeToString(a[:]))
		}
		reason := t.unready(d, seen, from)
		one.Ready = reason == ""
		if failed := why[d.Name]; failed != "" && !one.Ready {
			reason = failed
		}
		one.Reason = optional(reason)
		switch {
		case one.Ready:
			v.Ready++
		case d.Paused:
			v.Paused++
		default:
			v.HeldUp++
		}
		v.Devices = append(v.Devices, one)
	}
	return v, nil
}

// issuer returns the name of the CA that a device's certificate comes from, ""
// if it is neither of the two, or there is none.
func (w *rollingSite) issuer(ctx context.Context, t *turnover, d fleet.Device) (string, error) {
	if d.Certificate == nil {
		return "", nil
	}
	c, err := w.devices.CertificateByHash(ctx, d.Certificate.SHA256)
	if errors.Is(err, enrol.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	for _, ca := range []authority{t.next, t.old} {
		if ca.issued(c.DER, c.Chain) {
			return ca.Name, nil
		}
	}
	return "", nil
}

// unready says why a device has not acknowledged the stage, "" if it has.
func (t *turnover) unready(d fleet.Device, seen enrol.Sighting, from string) string {
	switch {
	case !seen.Of(d):
		return "its trust anchors were not read yet"
	case !seen.Lists(t.newAnchors...):
		return "it did not trust CA " + t.next.Name + " when it was seen"
	case !t.accepted(seen):
		return fmt.Sprintf("it had not accepted statement %d when it was seen", t.statementFor(d.Name).Serial)
	case !t.fits(seen):
		return "it trusted CA " + t.old.Name + " when it was seen"
	case t.Stage == stageIssueNew && d.Certificate != nil && from != t.next.Name:
		return "its certificate is not from CA " + t.next.Name + " yet"
	}
	return ""
}

func (v *rolloverView) heldUp() []string {
	return v.names(func(d rolloverDeviceView) bool { return !d.Ready && !d.Paused })
}

func (v *rolloverView) paused() []string {
	return v.names(func(d rolloverDeviceView) bool { return !d.Ready && d.Paused })
}

func (v *rolloverView) names(want func(rolloverDeviceView) bool) []string {
	var out []string
	for _, d := range v.Devices {
		if want(d) {
			out = append(out, d.Name)
		}
	}
	return out
}

func (v *rolloverView) render(a *app) error {
	t := clikit.Table{Columns: []clikit.Column{
		{Name: "name"}, {Name: "ready"}, {Name: "ca"}, {Name: "seen_at"}, {Name: "anchor_serial"}, {Name: "reason"}, {Name: "paused", Wide: true},
	}}
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return clikit.OneLine(*s)
	}
	for _, d := range v.Devices {
		t.Rows = append(t.Rows, []string{
			d.Name, strconv.FormatBool(d.Ready), text(d.CA), text(d.SeenAt), strconv.FormatUint(d.AnchorSerial, 10), text(d.Reason), strconv.FormatBool(d.Paused),
		})
	}
	if err := clikit.Render(a.Out, a.Output, v, t); err != nil {
		return err
	}
	a.note("stage %s, from CA %s to CA %s: %s", v.Stage, v.Old, v.New, fmt.Sprintf("ready=%d held_up=%d paused=%d", v.Ready, v.HeldUp, v.Paused))
	return nil
}
