package clmctl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/provision"
)

// condition is what a handshake with a device's address says about the device.
type condition string

// The conditions.
const (
	answersAsItself condition = "answers as itself"
	answersRefusing condition = "does not accept this CLM"
	answersOutdated condition = "answers with an earlier key"
	answersAsOther  condition = "another device answers there"
	answersFalsely  condition = "somebody there claims an identity and does not prove it"
	answersForeign  condition = "somebody else answers there"
	closedPort      condition = "nobody listens at its port"
	noAnswer        condition = "no answer"
	noRoute         condition = "its network cannot be reached"
	noSuchHost      condition = "its host name is not known"
	noAddress       condition = "it has no address"
)

// conditions lists them, the best first.
func conditions() []condition {
	return []condition{
		answersAsItself, answersRefusing, answersOutdated, answersAsOther, answersFalsely, answersForeign, closedPort, noAnswer, noRoute, noSuchHost, noAddress,
	}
}

// remedy is what to do about a device.
func (c condition) remedy(name string) string {
	switch c {
	case answersRefusing:
		return "its bundle does not list this CLM, or it has accepted a later key of this CLM's name: have the PKG issue it anew (pkg-offline issue --clm NAME), and carry the bundle to the device"
	case answersOutdated:
		return "clmctl device deliver " + name + " if its bundle waits; else carry the later bundle to the device: devagent provision"
	case answersAsOther:
		return "clmctl discover --apply records where the devices are"
	case answersFalsely:
		return "keep it off the network, and find out what it is"
	case answersForeign:
		return "check the address; a device of another PKG has to be provisioned anew: devagent provision"
	case closedPort:
		return "start the agent on the device (systemctl start devagent), or correct the port: clmctl commission --addresses FILE"
	case noAnswer:
		return "check power, cable and address; if the device answers ping, a firewall drops UDP to its port"
	case noRoute:
		return "check cable, interface and routes of this machine: ip route get ADDRESS"
	case noSuchHost:
		return "check the name and the name server; clmctl commission --addresses FILE takes numbers, too"
	case noAddress:
		return "clmctl commission --addresses FILE adds it, clmctl discover finds it"
	}
	return ""
}

// knocked is what came of a handshake.
type knocked struct {
	condition condition
	coaplink.Probed
	reason error // more about it; nil: nothing
}

// Of a handshake that only asks who is there.
const (
	knockWithin = 3 * time.Second
	knockAtOnce = 64
)

// knock makes a handshake with the address of each device, and nothing more.
// The results are in the order of the list.
func knock(ctx context.Context, p prober, resolve func(ctx context.Context, address string) ([]netip.AddrPort, error), list []fleet.Device) ([]knocked, error) {
	out := make([]knocked, len(list))
	failures := make([]error, len(list))
	slots := make(chan struct{}, knockAtOnce)
	var wg sync.WaitGroup
	for i, d := range list {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			out[i], failures[i] = knockAt(ctx, p, resolve, d)
		})
	}
	wg.Wait()
	return out, errors.Join(ctx.Err(), errors.Join(failures...))
}

// knockAt tries the addresses that a device's address stands for, until one
// answers as the device.
func knockAt(ctx context.Context, p prober, resolve func(ctx context.Context, address string) ([]netip.AddrPort, error), d fleet.Device) (knocked, error) {
	if d.Address == "" {
		return knocked{condition: noAddress}, nil
	}
	found, unknown := resolve(ctx, d.Address)
	if len(found) == 0 {
		return knocked{condition: noSuchHost, reason: unknown}, nil
	}
	var best knocked
	for i, at := range found {
		one, cancel := context.WithTimeout(ctx, knockWithin)
		probed, err := p.Probe(one, at.String())
		over := one.Err() != nil
		cancel()
		// That the time is over is what silence looks like.
		if err != nil && !over {
			return knocked{}, err
		}
		k := judgeKnock(d, probed)
		if i == 0 || rank(k.condition) < rank(best.condition) {
			best = k
		}
		if k.condition == answersAsItself {
			break
		}
	}
	return best, nil
}

func rank(c condition) int {
	for i, other := range conditions() {
		if other == c {
			return i
		}
	}
	return len(conditions())
}

// judgeKnock says what an answer means for a device.
func judgeKnock(d fleet.Device, p coaplink.Probed) knocked {
	k := knocked{Probed: p, reason: p.Reason}
	switch p.Verdict {
	case coaplink.Stranger:
		k.condition = answersForeign
	case coaplink.Impostor:
		k.condition = answersFalsely
	case coaplink.Proven:
		switch {
		case p.Identity.Name != d.Name:
			k.condition = answersAsOther
		case p.Identity.Compare(d.Identity) < 0:
			k.condition = answersOutdated
			k.reason = fmt.Errorf("it has %s, the inventory %s", p.Identity, d.Identity)
		case p.Refuses:
			k.condition = answersRefusing
		default:
			k.condition = answersAsItself
		}
	default:
		switch {
		case p.Closed:
			k.condition = closedPort
		case p.NoRoute:
			k.condition = noRoute
		default:
			k.condition = noAnswer
		}
	}
	return k
}

// resolver looks addresses of the inventory up.
func resolver() func(ctx context.Context, address string) ([]netip.AddrPort, error) {
	t := &targets{port: devicePort, resolver: net.DefaultResolver}
	return t.resolve
}

// quietDialer is the dialer of this CLM for looking alone: where there is no
// key of the channel yet, it makes one for this time, and writes nothing.
func (a *app) quietDialer(s *site, own *provision.Endpoint) (*coaplink.Dialer, error) {
	keys, err := s.dir.quietCredentials(own, a.Random)
	if err != nil {
		return nil, err
	}
	return a.dialerWith(s, own, keys), nil
}
