package clmctl

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/store"
)

// fewProbes is how many devices doctor contacts unless it is asked to contact
// all: enough to tell a firewall from a device that is off.
const fewProbes = 5

// tally is the inventory in numbers.
type tally struct {
	total, operational, expired, never, failing, quarantined, paused, homeless int
	overdue                                                                    []string // names
	late                                                                       time.Duration
	shortest                                                                   time.Duration // life of a valid certificate; 0: there is none
	contact                                                                    []fleet.Device
	epochs                                                                     map[uint32]int // devices of each
}

// checkDevices says how the devices are, from the inventory, and contacts some
// of them or all.
func (c *checkup) checkDevices(ctx context.Context) {
	const check = "devices"
	if c.inventory == nil {
		c.skip(check, "there is no inventory to read them from")
		return
	}
	n, err := c.count(ctx)
	if err != nil {
		c.failError(check, "clmctl device list", err)
		return
	}
	text := fmt.Sprintf("%s: %d operational, %d expired, %d never enrolled, %d failing, %d quarantined, %d paused",
		devices(n.total), n.operational, n.expired, n.never, n.failing, n.quarantined, n.paused)
	switch {
	case n.quarantined > 0:
		c.warn(check, "clmctl device list --state quarantined; after the cause is fixed: clmctl device release NAME --reason TEXT", "%s", text)
	case n.expired > 0:
		c.warn(check, "clmctl device list --state expired; clmctl doctor --device NAME says what is wrong with one", "%s", text)
	case n.failing > 0:
		c.warn(check, "clmctl device list --state failing; clmctl doctor --device NAME says what is wrong with one", "%s", text)
	default:
		c.ok(check, "%s", text)
	}
	if n.homeless > 0 {
		c.warn(check, "clmctl commission --addresses FILE adds addresses, clmctl discover finds devices", "%s without an address", devices(n.homeless))
	}
	if len(n.overdue) > 0 {
		c.warn(check, "have cron, a systemd timer or clmctl run renew them: clmctl renew", "%s due for up to %s: %s", devicesAre(len(n.overdue)), about(n.late), few(n.overdue))
	}
	c.checkEpochs(n.epochs)
	c.checkMaintenance(n.shortest)
	c.probeDevices(ctx, n.contact)
}

// count goes through the inventory once.
func (c *checkup) count(ctx context.Context) (n tally, err error) {
	now := c.Now()
	for d, err := range c.inventory.ListDevices(ctx, store.Filter{}) {
		if err != nil {
			return n, err
		}
		n.add(d, now)
		if d.EnrolledAt.After(c.latest) {
			c.latest = d.EnrolledAt
		}
		if d.Address != "" && (c.contact || len(n.contact) < fewProbes) {
			n.contact = append(n.contact, d)
		}
	}
	return n, nil
}

func (n *tally) add(d fleet.Device, now time.Time) {
	n.total++
	if n.epochs == nil {
		n.epochs = map[uint32]int{}
	}
	n.epochs[d.Identity.Epoch]++
	operational := d.State(now) == fleet.Operational
	switch {
	case operational:
		n.operational++
		if life := d.Certificate.NotAfter.Sub(d.Certificate.NotBefore); n.shortest == 0 || life < n.shortest {
			n.shortest = life
		}
	case d.Certificate != nil:
		n.expired++
	default:
		n.never++
	}
	if d.Address == "" {
		n.homeless++
	}
	switch {
	case d.Quarantined:
		n.quarantined++
	case d.Paused:
		n.paused++
	case d.LastError != "":
		n.failing++
	case operational && !d.RenewAt.IsZero():
		// What is due waits for the next run, which is no fault by itself.
		late := now.Sub(d.RenewAt)
		if late > d.Certificate.NotAfter.Sub(d.Certificate.NotBefore)/10 {
			n.overdue = append(n.overdue, d.Name)
			n.late = max(n.late, late)
		}
	}
}

// probeDevices finds out by handshakes who answers, and what stands between
// us and those who do not.
func (c *checkup) probeDevices(ctx context.Context, list []fleet.Device) {
	const check = "device ports"
	if len(list) == 0 || c.identity == nil {
		c.skip(check, "there is no device to contact")
		return
	}
	dialer, err := c.quietDialer(c.site, c.identity)
	if err != nil {
		c.failError(check, "", err)
		return
	}
	said, err := knock(ctx, dialer, resolver(), list)
	if err != nil {
		c.failError(check, "", err)
		return
	}
	by := map[condition][]string{}
	for i, k := range said {
		by[k.condition] = append(by[k.condition], list[i].Name)
	}
	if names := by[answersAsItself]; len(names) > 0 {
		c.ok(check, "%d of %d contacted, in place and answering as themselves", len(names), len(list))
	}
	for _, what := range conditions() {
		if names := by[what]; len(names) > 0 && what != answersAsItself {
			slices.Sort(names)
			c.fail(check, what.remedy(names[0]), "%s: %s: %s", devices(len(names)), what, few(names))
		}
	}
}
