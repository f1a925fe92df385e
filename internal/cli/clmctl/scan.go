package clmctl

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/fleet"
)

// prober finds out who is at an address; *coaplink.Dialer is one.
type prober interface {
	Probe(ctx context.Context, address string) (coaplink.Probed, error)
}

// sight is what discover says about an address.
type sight string

// What is at an address.
const (
	sightKnown    sight = "known"    // the device that the inventory has there
	sightMoved    sight = "moved"    // a device that the inventory has elsewhere, or nowhere
	sightAlso     sight = "also"     // a second address of a device that is where the inventory has it
	sightNew      sight = "new"      // a device of this PKG that was not commissioned
	sightClone    sight = "clone"    // one of several that prove one identity
	sightOutdated sight = "outdated" // a device with an earlier key than the inventory knows
	sightImpostor sight = "impostor" // claims an identity of this PKG, and does not prove it
	sightStranger sight = "stranger" // anything else that answers
)

// presence is an address at which somebody answered.
type presence struct {
	coaplink.Probed
	at    netip.AddrPort
	sight sight
	known string // the inventory's address of the device
	note  string
}

// scan probes addresses at a gentle rate.
type scan struct {
	prober  prober
	rate    float64       // probes started per second
	timeout time.Duration // of one probe
	asked   map[netip.AddrPort]bool
	silent  int // of the first answers
}

// maxInFlight bounds the probes that wait for an answer.
const maxInFlight = 256

// probe probes addresses and returns those at which somebody answered, in the
// order of the list. An error is of this side, or of ctx.
func (s *scan) probe(ctx context.Context, list []netip.AddrPort) ([]coaplink.Probed, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	answers := make([]coaplink.Probed, len(list))
	slots := make(chan struct{}, maxInFlight)
	tick := time.NewTicker(time.Duration(float64(time.Second) / s.rate))
	defer tick.Stop()
	var wg sync.WaitGroup
	for i, at := range list {
		if i > 0 {
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			one, done := context.WithTimeout(ctx, s.timeout)
			defer done()
			p, err := s.prober.Probe(one, at.String())
			// That the time is over is what silence looks like.
			if err != nil && one.Err() == nil {
				cancel(err)
			}
			answers[i] = p
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if s.asked == nil {
		s.asked = map[netip.AddrPort]bool{}
	}
	var out []coaplink.Probed
	for i, p := range answers {
		first := !s.asked[list[i]]
		s.asked[list[i]] = true
		if p.Verdict != coaplink.Silent && p.Verdict != "" {
			out = append(out, p)
		} else if first {
			s.silent++
		}
	}
	return out, nil
}

// resolveFunc returns the addresses that an address of the inventory stands
// for now; none if that cannot be told.
type resolveFunc func(ctx context.Context, address string) []netip.AddrPort

// judge says what the answers mean. Where a device was found elsewhere than the
// inventory has it, it probes there too: only then a move is told from a copy.
func (s *scan) judge(ctx context.Context, answers []coaplink.Probed, devices map[string]fleet.Device, resolve resolveFunc) ([]presence, error) {
	var out []presence
	add := func(answers []coaplink.Probed) error {
		for _, p := range answers {
			at, err := netip.ParseAddrPort(p.Address)
			if err != nil {
				return err
			}
			out = append(out, first(p, at, devices))
		}
		return nil
	}
	if err := add(answers); err != nil {
		return nil, err
	}
	home := map[string][]netip.AddrPort{} // where the inventory has those that were found
	for {
		more := s.homes(ctx, out, home, resolve)
		if len(more) == 0 {
			break
		}
		answers, err := s.probe(ctx, more)
		if err != nil {
			return nil, err
		}
		if err := add(answers); err != nil {
			return nil, err
		}
	}
	for name, at := range byDevice(out) {
		if err := s.settle(ctx, at, home[name]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// homes adds where the inventory has the devices that were found elsewhere, and
// returns what of that was not asked yet.
func (s *scan) homes(ctx context.Context, found []presence, home map[string][]netip.AddrPort, resolve resolveFunc) []netip.AddrPort {
	var more []netip.AddrPort
	for _, f := range found {
		if _, done := home[f.Identity.Name]; f.sight != sightMoved || done || f.known == "" {
			continue
		}
		home[f.Identity.Name] = resolve(ctx, f.known)
		for _, at := range home[f.Identity.Name] {
			if !s.asked[at] && !slices.Contains(more, at) {
				more = append(more, at)
			}
		}
	}
	return more
}

// first is what one answer says by itself.
func first(p coaplink.Probed, at netip.AddrPort, devices map[string]fleet.Device) presence {
	f := presence{Probed: p, at: at}
	if p.Reason != nil {
		f.note = p.Reason.Error()
	}
	switch p.Verdict {
	case coaplink.Stranger:
		f.sight = sightStranger
		return f
	case coaplink.Impostor:
		f.sight = sightImpostor
		return f
	}
	if p.Refuses {
		f.note = "it does not accept this CLM"
	}
	d, ok := devices[p.Identity.Name]
	switch {
	case !ok:
		f.sight = sightNew
	case p.Identity.Compare(d.Identity) < 0:
		f.sight, f.known = sightOutdated, d.Address
		f.note = fmt.Sprintf("the inventory knows %s", d.Identity)
	default:
		f.sight, f.known = sightMoved, d.Address
	}
	return f
}

// byDevice groups the findings of devices that proved an identity.
func byDevice(all []presence) map[string][]*presence {
	out := map[string][]*presence{}
	for i := range all {
		if f := &all[i]; f.sight == sightMoved || f.sight == sightNew {
			out[f.Identity.Name] = append(out[f.Identity.Name], f)
		}
	}
	return out
}

// settle says what the addresses mean at which one name was proved.
func (s *scan) settle(ctx context.Context, at []*presence, home []netip.AddrPort) error {
	if keys(at) > 1 {
		// A device that moved or started anew during the scan shows two keys, too:
		// they are clones if they are all there at once.
		live, err := s.again(ctx, at)
		if err != nil {
			return err
		}
		if keys(live) > 1 {
			for _, f := range live {
				f.sight = sightClone
				f.note = "the identity is proved at " + others(live, f) + " as well"
			}
			return nil
		}
		at = live
	}
	isHome := func(f *presence) bool { return slices.Contains(home, f.at) }
	stays := slices.ContainsFunc(at, isHome)
	for i, f := range at {
		switch {
		case f.sight == sightNew:
		case isHome(f):
			f.sight = sightKnown
		case stays || i > 0:
			f.sight, f.note = sightAlso, "another address of the same device"
		}
	}
	return nil
}

// again probes the addresses once more, and returns those at which the device
// is still.
func (s *scan) again(ctx context.Context, at []*presence) ([]*presence, error) {
	list := make([]netip.AddrPort, len(at))
	for i, f := range at {
		list[i] = f.at
	}
	answers, err := s.probe(ctx, list)
	if err != nil {
		return nil, err
	}
	var live []*presence
	for _, f := range at {
		i := slices.IndexFunc(answers, func(p coaplink.Probed) bool { return p.Address == f.Address })
		if i < 0 || answers[i].Verdict != coaplink.Proven || answers[i].Identity.Name != f.Identity.Name {
			f.sight, f.note = sightAlso, "gone when it was asked again"
			continue
		}
		f.Key = answers[i].Key
		live = append(live, f)
	}
	return live, nil
}

func keys(at []*presence) int {
	found := map[[32]byte]bool{}
	for _, f := range at {
		found[f.Key] = true
	}
	return len(found)
}

func others(at []*presence, except *presence) string {
	var out []string
	for _, f := range at {
		if f != except {
			out = append(out, f.Address)
		}
	}
	return strings.Join(out, ", ")
}
