package agent

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/provision"
)

// self is who the device is. A request may replace it while handshakes and
// other requests go on with what they have read.
type self struct {
	now      atomic.Pointer[provision.Endpoint]
	trusted  atomic.Pointer[[]netip.Addr] // of the CLMs of now
	changing sync.Mutex                   // from reading now to storing the next
}

func (s *self) store(e *provision.Endpoint) {
	var trusted []netip.Addr
	for _, address := range e.CLMAddresses {
		// What needs a resolver is not waited for.
		if at, err := netip.ParseAddrPort(address); err == nil {
			trusted = append(trusted, at.Addr().Unmap())
		}
	}
	s.trusted.Store(&trusted)
	s.now.Store(e)
}

// present returns who the device is; nobody changes it.
func (a *Agent) present() *provision.Endpoint { return a.self.now.Load() }

// Identity returns who the device is.
func (a *Agent) Identity() ibc.Identity { return a.present().Identity }

// Present returns the identity-based key, for the binding of a handshake, and
// the parameters under which a CLM may prove itself in it.
func (a *Agent) Present() (*ibc.PrivateKey, []*ibc.Params) {
	p := a.present()
	return p.Key, p.Known()
}

// Trusted reports whether a source is an address at which the bundle knows a
// CLM.
func (a *Agent) Trusted(source netip.Addr) bool {
	return slices.Contains(*a.self.trusted.Load(), source)
}

// succeed makes another endpoint of the present one, durably; nil is none. If
// that fails, memory has the present one and the disk either.
func (a *Agent) succeed(change func(*provision.Endpoint) (*provision.Endpoint, error)) (changed bool, err error) {
	a.self.changing.Lock()
	defer a.self.changing.Unlock()
	next, err := change(a.present())
	if err != nil || next == nil {
		return false, err
	}
	if err := a.dir.provisioned().Save(next); err != nil {
		return false, err
	}
	a.self.store(next)
	return true, nil
}

// Settle takes note that a handshake has finished in which the device proved
// one identity and a CLM another. If both are of the bundle that was accepted
// last, what earlier ones allowed is over.
func (a *Agent) Settle(own, clm ibc.Identity) {
	if a.present().Settled(own, clm) == nil {
		return
	}
	a.self.changing.Lock()
	defer a.self.changing.Unlock()
	next := a.present().Settled(own, clm)
	if next == nil {
		return
	}
	// On a disk that takes no more, a restart forgets it until the next
	// handshake. To refuse the CLM instead would help nobody.
	if err := a.dir.provisioned().Save(next); err != nil {
		a.cfg.Log.Error("store that a CLM knows this identity", "identity", own, "peer", clm, "error", err)
	}
	a.self.store(next)
	a.cfg.Log.Info("a CLM knows this identity; earlier peers and parameters are void", "identity", own, "peer", clm)
}
