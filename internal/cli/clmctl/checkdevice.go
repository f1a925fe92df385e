package clmctl

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// runDeviceCheckup says what is wrong with one device. It reads from the device
// and changes nothing there.
func (a *app) runDeviceCheckup(cmd *cobra.Command, name string) error {
	c := &checkup{app: a}
	defer c.close()
	s, err := a.openExisting(cmd)
	if err != nil {
		return err
	}
	c.site = s
	ctx := cmd.Context()
	if c.identity, err = s.dir.identity(); err != nil {
		return err
	}
	if c.inventory, err = s.dir.inventory(ctx, true); err != nil {
		return err
	}
	h, err := c.inventory.History(ctx, name, 1)
	if err != nil {
		return explainUnknown(err)
	}
	d := h.Device
	c.checkRecord(d)
	if waiting := waitingFor(h.Deliveries); waiting != "" {
		c.warn("device deliveries", "clmctl device deliver "+d.Name, "waiting: %s", waiting)
	}
	if !c.checkAnswers(ctx, d) {
		return c.conclude()
	}
	status, err := c.ask(ctx, d)
	if err != nil {
		c.fail("device status", "look at the log of the agent on the device: journalctl -u devagent", "%v", err)
		return c.conclude()
	}
	c.checkStatus(d, status)
	return c.conclude()
}

// checkRecord looks at what the inventory says.
func (c *checkup) checkRecord(d fleet.Device) {
	const check = "device record"
	now := c.Now()
	switch {
	case !d.InService():
		c.warn(check, "clmctl commission --reinstate brings it back", "out of service since %s", stamp(d.Decommissioned))
	case d.Quarantined:
		c.fail(check, "after the cause is fixed: clmctl device release "+d.Name+" --reason TEXT", "quarantined after %d failed enrolments: %s", d.Attempts, d.LastError)
	case d.Paused:
		c.warn(check, "clmctl device resume "+d.Name, "paused: nobody renews it")
	case d.LastError != "":
		c.warn(check, "clmctl device history "+d.Name+" tells more", "the last try failed: %s; the next one: %s", d.LastError, whenOr(d.NextAttempt, now, "at once"))
	default:
		c.ok(check, "nothing stands against it")
	}
	const certificate = "device certificate"
	switch {
	case d.Certificate == nil:
		c.warn(certificate, "clmctl enrol "+d.Name, "none yet")
	case d.State(now) != fleet.Operational:
		c.fail(certificate, "clmctl renew "+d.Name, "it ended at %s", stamp(d.Certificate.NotAfter))
	case d.Due(now):
		c.ok(certificate, "until %s; due since %s", stamp(d.Certificate.NotAfter), stamp(d.RenewAt))
	default:
		c.ok(certificate, "until %s; it is renewed from %s on", stamp(d.Certificate.NotAfter), stamp(d.RenewAt))
	}
}

func whenOr(t, now time.Time, otherwise string) string {
	if !t.After(now) {
		return otherwise
	}
	return "at " + stamp(t)
}

// checkAnswers finds out who is at the device's address, and whether it is the
// device.
func (c *checkup) checkAnswers(ctx context.Context, d fleet.Device) bool {
	const check = "device address"
	dialer, err := c.quietDialer(c.site, c.identity)
	if err != nil {
		c.failError(check, "", err)
		return false
	}
	look := resolver()
	if d.Address != "" {
		if found, err := look(ctx, d.Address); err == nil && !strings.HasPrefix(d.Address, found[0].String()) {
			c.ok(check, "%s is %s", d.Address, joinAddresses(found))
		}
	}
	said, err := knock(ctx, dialer, look, []fleet.Device{d})
	if err != nil {
		c.failError(check, "", err)
		return false
	}
	k := said[0]
	text := fmt.Sprintf("%s: %s", d.Address, k.condition)
	if k.Identity != (ibc.Identity{}) {
		text += fmt.Sprintf(", %s", k.Identity)
	}
	if k.condition == answersAsItself {
		c.ok(check, "%s", text)
		return true
	}
	if k.reason != nil {
		text += fmt.Sprintf(": %v", k.reason)
	}
	c.fail(check, k.condition.remedy(d.Name), "%s", text)
	return false
}

func joinAddresses[T fmt.Stringer](list []T) string {
	out := make([]string, len(list))
	for i, a := range list {
		out[i] = a.String()
	}
	return strings.Join(out, ", ")
}

func (c *checkup) ask(ctx context.Context, d fleet.Device) (status enrol.DeviceStatus, err error) {
	dialer, err := c.quietDialer(c.site, c.identity)
	if err != nil {
		return status, err
	}
	link, err := dialer.Dial(ctx, d)
	if err != nil {
		return status, err
	}
	// What it said is good either way.
	defer func() { _ = link.Close() }()
	return link.Status(ctx)
}

// checkStatus holds what a device says against the inventory.
func (c *checkup) checkStatus(d fleet.Device, s enrol.DeviceStatus) {
	c.ok("device agent", "version %s, %s", s.Version, s.Identity)
	if s.LastError != "" {
		c.warn("device agent", "look at the log of the agent on the device: journalctl -u devagent", "it says: %s", s.LastError)
	}
	c.checkDeviceClock(s)
	c.checkDeviceCertificate(d, s)
	c.checkDeviceAnchors(s)
}

func (c *checkup) checkDeviceClock(s enrol.DeviceStatus) {
	const check = "device clock"
	ours := s.Time.Sub(c.Now())
	switch {
	case s.Clock == enrol.ClockBehind:
		c.warn(check, "give the device a time server, if it can have one; its certificates are renewed all the same", "behind what its certificates prove: it shows %s", stamp(s.Time))
	case !s.Time.IsZero() && ours.Abs() >= largeSkew:
		c.warn(check, "give the device a time server, or look at the clock here: clmctl doctor", "%s ours: it shows %s", ahead(ours), stamp(s.Time))
	default:
		c.ok(check, "%s", s.Clock)
	}
}

func (c *checkup) checkDeviceCertificate(d fleet.Device, s enrol.DeviceStatus) {
	const check = "device certificate"
	switch {
	case s.Active == nil && d.Certificate == nil:
		c.ok(check, "the device has none either")
	case s.Active == nil:
		c.fail(check, "clmctl renew --force "+d.Name+" obtains a new one", "the device has none: it was reset or replaced")
	case d.Certificate == nil || s.Active.SHA256 != d.Certificate.SHA256:
		text := fmt.Sprintf("the device has another one, serial %s until %s", s.Active.Serial, stamp(s.Active.NotAfter))
		if s.RolledBack != nil && d.Certificate != nil && *s.RolledBack == d.Certificate.SHA256 {
			text += ", since it went back"
		}
		c.fail(check, "clmctl device history "+d.Name+" tells how that came; clmctl renew --force "+d.Name+" obtains a new one", "%s", text)
	case s.Unconfirmed:
		c.warn(check, "clmctl renew "+d.Name, "the device waits for its confirmation, and goes back without it")
	default:
		c.ok(check, "the device has the same one")
	}
	if s.Staged != nil {
		c.warn(check, "clmctl renew "+d.Name+" goes on with it", "a staged one waits, serial %s until %s", s.Staged.Serial, stamp(s.Staged.NotAfter))
	}
}

func (c *checkup) checkDeviceAnchors(s enrol.DeviceStatus) {
	const check = "device anchors"
	file, err := c.site.dir.authorities()
	if err != nil {
		c.skip(check, "%v", err)
		return
	}
	ca := file.Authorities[0]
	switch {
	case len(s.Anchors) == 0:
		c.ok(check, "none yet: the CA of its first enrolment becomes one")
	case slices.Contains(s.Anchors, sha256.Sum256(ca.Anchor)):
		c.ok(check, "%d, that of CA %s among them", len(s.Anchors), ca.Name)
	default:
		c.fail(check, "hand the CA's root over first: clmctl ca rollover, or pkg-offline anchor and clmctl device deliver (docs/ca-rollover.md)",
			"none of the device's is that of CA %s: it would refuse every certificate; it has %s", ca.Name, hex.EncodeToString(s.Anchors[0][:8])+"...")
	}
}
