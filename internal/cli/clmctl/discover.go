package clmctl

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/mdns"
	"github.com/edgeclm/edgeclm/internal/store"
)

// Defaults and bounds of discover.
const (
	devicePort      = 5684 // of CoAP over DTLS (RFC 7252 section 12.6)
	defaultRate     = 10   // probes per second
	maxRate         = 1000
	defaultProbe    = 3 * time.Second
	manyTargets     = 1024 // more are confirmed
	sourceDiscovery = "discover"
	browseFor       = 3 * time.Second
)

type discoverOptions struct {
	targets []string
	port    uint16
	rate    float64
	timeout time.Duration
	apply   bool
	mdns    bool
}

func (a *app) discoverCommand() *cobra.Command {
	var o discoverOptions
	cmd := &cobra.Command{
		Use:   "discover [ADDR | NAME | SUBNET]...",
		Short: "Find out which devices are where",
		Long: `discover probes addresses (10.3.0.11, 10.3.0.11:5684, [2001:db8::1]:5684), host
names and subnets (10.3.0.0/24), without any the addresses of the inventory. With
--mdns it asks for devices on its own links first, too, by multicast DNS, where
agents announce themselves if they were told to (devagent serve --mdns). At each it does a handshake and nothing more: who answers has to prove an identity
of this PKG, and only what was proved is believed.

  known     a device is where the inventory has it
  moved     a device is elsewhere: --apply records the new address
  also      a second address of a device
  new       a device of this PKG that was not commissioned
  clone     several prove one identity at once: nothing is recorded, the history
            notes it; raise the generation of the identity
  outdated  a device with an earlier key than the inventory knows
  impostor  claims an identity of this PKG, and does not prove it
  stranger  something else answers: a device of another PKG, or another protocol

Before it calls a device moved, discover probes the address that the inventory
has, too. It probes ten addresses a second, unless --rate says otherwise, and at
most a /16; more than 1,024 are confirmed.

Exit codes: 0 done, 3 there are clones, impostors or devices with an earlier key.`,
		Example: "  clmctl discover 10.3.0.0/24\n  clmctl discover plc-0001.bilbao 10.3.0.11:5684 --apply",
		RunE: func(cmd *cobra.Command, args []string) error {
			o.targets = args
			if err := o.check(); err != nil {
				return err
			}
			s, err := a.openExisting(cmd)
			if err != nil {
				return err
			}
			return explainTargets(a.runDiscover(cmd.Context(), s, o))
		},
	}
	f := cmd.Flags()
	f.Uint16Var(&o.port, "port", devicePort, "port where an address has none")
	f.Float64Var(&o.rate, "rate", defaultRate, "probes per second")
	f.DurationVar(&o.timeout, "probe-timeout", defaultProbe, "how long to wait for an answer")
	f.BoolVar(&o.mdns, "mdns", false, "also probe what announces itself on the links of this machine")
	f.BoolVar(&o.apply, "apply", false, "record the new addresses of devices that moved")
	return cmd
}

func (o discoverOptions) check() error {
	switch {
	case !(o.rate > 0 && o.rate <= maxRate):
		return clikit.Usage("--rate: %v is not above 0 and up to %d", o.rate, maxRate)
	case o.timeout <= 0:
		return clikit.Usage("--probe-timeout: %v is not longer than 0", o.timeout)
	case o.port == 0:
		return clikit.Usage("--port: 0 is no port")
	}
	return nil
}

// discovered is the result of discover.
type discovered struct {
	Probed   int              `json:"probed"`
	Silent   int              `json:"silent"`
	Recorded int              `json:"recorded"` // new addresses
	Found    []discoveredHost `json:"found"`
}

type discoveredHost struct {
	Address  string  `json:"address"`
	Status   sight   `json:"status"`
	Name     *string `json:"name"`     // proved, or only claimed by impostors and strangers
	Identity *string `json:"identity"` // likewise
	Known    *string `json:"known_address"`
	Note     *string `json:"note"`
}

func (a *app) runDiscover(ctx context.Context, s *site, o discoverOptions) (err error) {
	identity, err := s.dir.identity()
	if err != nil {
		return err
	}
	defer identity.Destroy()
	dialer, err := a.dialer(s, identity)
	if err != nil {
		return err
	}
	inventory, err := s.dir.inventory(ctx, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, inventory.Close()) }()
	devices := map[string]fleet.Device{}
	for d, err := range inventory.ListDevices(ctx, store.Filter{}) {
		if err != nil {
			return err
		}
		devices[d.Name] = d
	}
	t := &targets{port: o.port, resolver: net.DefaultResolver}
	if err := a.collect(ctx, t, o, devices); err != nil {
		return err
	}
	if err := a.confirmTargets(len(t.list), o); err != nil {
		return err
	}
	run := &scan{prober: dialer, rate: o.rate, timeout: o.timeout}
	answers, err := run.probe(ctx, t.list)
	if err != nil {
		return err
	}
	found, err := run.judge(ctx, answers, devices, func(ctx context.Context, address string) []netip.AddrPort {
		at, err := t.resolve(ctx, address)
		if err != nil {
			a.warn("the address of the inventory: %v", err)
		}
		return at
	})
	if err != nil {
		return err
	}
	return a.concludeDiscovery(ctx, inventory, run, found, o.apply)
}

// collect adds what was asked for to the targets; nothing stands for the
// addresses of the inventory.
func (a *app) collect(ctx context.Context, t *targets, o discoverOptions, devices map[string]fleet.Device) error {
	for _, text := range o.targets {
		if err := t.add(ctx, text); err != nil {
			return err
		}
	}
	if o.mdns {
		if err := a.browse(ctx, t); err != nil {
			return err
		}
	}
	if len(o.targets) > 0 || o.mdns {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		address := devices[name].Address
		if address == "" {
			continue
		}
		// One name that nobody knows does not keep the others from being found.
		if err := t.add(ctx, address); err != nil {
			a.warn("%s: %v", name, err)
		}
	}
	return nil
}

// browse adds what announces itself.
func (a *app) browse(ctx context.Context, t *targets) error {
	ctx, cancel := context.WithTimeout(ctx, browseFor)
	defer cancel()
	found, err := mdns.Browse(ctx)
	if err != nil {
		return fmt.Errorf("--mdns: %w", err)
	}
	a.note("announced on the links of this machine: %d", len(found))
	for _, at := range found {
		if err := t.put(at); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) confirmTargets(n int, o discoverOptions) error {
	if n == 0 && o.mdns {
		return errors.New("nothing announces itself")
	}
	if n == 0 {
		return clikit.WithHint(clikit.Usage("there is no address to probe"), "give addresses or subnets: clmctl discover 10.3.0.0/24")
	}
	if n <= manyTargets {
		return nil
	}
	takes := time.Duration(float64(n) / o.rate * float64(time.Second)).Round(time.Second)
	ok, err := a.Confirm(a.Streams, fmt.Sprintf("Probe %d addresses, which takes %v?", n, takes))
	if err == nil && !ok {
		err = errors.New("nothing was probed")
	}
	return err
}

// concludeDiscovery records and shows what was found.
func (a *app) concludeDiscovery(ctx context.Context, inventory inventory, run *scan, found []presence, apply bool) error {
	r := discovered{Probed: len(run.asked), Silent: run.silent, Found: []discoveredHost{}}
	delivery := store.Delivery{At: a.Now(), Source: sourceDiscovery}
	t := clikit.Table{Columns: clikit.Columns("address", "status", "name", "identity", "known_address", "note")}
	moved, alarming := 0, 0
	for _, f := range found {
		h := f.host()
		r.Found = append(r.Found, h)
		t.Rows = append(t.Rows, []string{h.Address, string(h.Status), deref(h.Name), deref(h.Identity), deref(h.Known), deref(h.Note)})
		switch f.sight {
		case sightMoved:
			moved++
			delivery.Addresses = append(delivery.Addresses, store.Address{Device: f.Identity.Name, Address: f.Address})
		case sightClone, sightImpostor, sightOutdated:
			alarming++
			a.warn("%s at %s: %s: %s", f.sight, f.Address, f.Identity, f.note)
		}
		if err := a.noteClone(ctx, inventory, f); err != nil {
			return err
		}
	}
	if apply && moved > 0 {
		n, err := inventory.PutDevices(ctx, delivery)
		if err != nil {
			return err
		}
		r.Recorded = n.Updated
	}
	if err := clikit.Render(a.Out, a.Output, r, t); err != nil {
		return err
	}
	a.note("probed %d, %d of them silent; moved: %d, recorded: %d", r.Probed, r.Silent, moved, r.Recorded)
	if moved > 0 && !apply {
		a.note("nothing was recorded: --apply records the new addresses")
	}
	if alarming > 0 {
		return clikit.WithHint(clikit.WithCode(fmt.Errorf("clones, impostors or earlier keys: %d", alarming), clikit.ExitSomeFailed),
			"raise the generation of what was copied: pkg-offline issue --generation N NAME, then clmctl commission --deliver=never")
	}
	return nil
}

// noteClone takes a clone down in the history of the device.
func (a *app) noteClone(ctx context.Context, inventory inventory, f presence) error {
	if f.sight != sightClone {
		return nil
	}
	action := store.Action{Device: f.Identity.Name, At: a.Now(), Reason: fmt.Sprintf("%s at %s: %s", f.Identity, f.Address, f.note)}
	if err := inventory.Note(ctx, action, store.EventCloned); err != nil && !errors.Is(err, enrol.ErrNotFound) {
		return err
	}
	return nil
}

func (f presence) host() discoveredHost {
	h := discoveredHost{Address: f.Address, Status: f.sight, Known: optional(f.known), Note: optional(f.note)}
	if f.Identity.Name != "" {
		h.Name, h.Identity = optional(f.Identity.Name), optional(f.Identity.String())
	}
	return h
}

func explainTargets(err error) error {
	if errors.Is(err, errTargets) {
		return clikit.WithHint(clikit.WithCode(err, clikit.ExitUsage), "give addresses, host names, or subnets of at most "+strconv.Itoa(maxTargets)+" addresses")
	}
	return err
}
