package provision

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/lifeboat"
)

// Endpoint is who an endpoint is, and whom a device listens to. It is not
// changed: Accept and Settled return another.
//
// A device that took a later bundle presents the new identity at once, but
// nobody may know yet: the power may fail, or the channel, before its CLM hears
// of it, and that CLM may still have its own earlier key. So what its
// predecessors allowed stays allowed until a CLM has finished a handshake under
// the new bundle.
type Endpoint struct {
	*bundle.Bundle // that was accepted last

	// Root is the params_id of the first bundle: the root of trust, from which
	// statements led to the present epoch.
	Root bundle.Hash
	// Floors are the highest of each CLM name in the bundles before: a bundle
	// raises a floor, none lowers it.
	Floors []bundle.Peer
	// Predecessors are the bundles since the last one under which a CLM
	// was seen, that one first; empty once it was seen under this one.
	Predecessors []Predecessor
	// Earlier is what a CLM keeps of epochs before the present one, oldest first.
	Earlier []Epoch
	// Lifeboat is the statement that made Root the root of trust, after another
	// one: the last that was ever taken, zero if none was.
	Lifeboat lifeboat.Accepted
}

// Predecessor is what an earlier bundle allows.
type Predecessor struct {
	Params *ibc.Params   `json:"params"` // that verify its peers
	Peers  []bundle.Peer `json:"peers"`  // with the floors that they had
}

// maxPredecessors bounds them. The first is never dropped: it is the one that
// a CLM is known to know.
const maxPredecessors = 4

// Accept returns what the endpoint is after it has opened a bundle: the
// same role, name and recovery key, of the same PKG (or of a later epoch to
// which the bundle's statements lead), and later in (epoch, generation). It
// returns nil if the bundle is the one accepted last.
//
// Errors wrap ErrOther, ErrNotLater or bundle.ErrParams.
func (e *Endpoint) Accept(b *bundle.Bundle) (*Endpoint, error) {
	if b.Identity.Role != e.Identity.Role || b.Identity.Name != e.Identity.Name {
		return nil, fmt.Errorf("the bundle is %w: %s, this is %s", ErrOther, b.Identity, e.Identity)
	}
	order := b.Identity.Compare(e.Identity)
	if order < 0 {
		return nil, fmt.Errorf("bundle of %s is %w, %s", b.Identity, ErrNotLater, e.Identity)
	}
	if err := b.Follows(e.Params); err != nil {
		return nil, err
	}
	// The first bundle fixes the recovery key: a thief of the master secret
	// must not be able to replace it.
	if b.RecoveryHash != e.RecoveryHash {
		return nil, fmt.Errorf("bundle of %s is %w: it names another recovery key", b.Identity, bundle.ErrParams)
	}
	next := *b
	next.Epochs = nil // they have done their work
	if len(next.Anchors) == 0 {
		// A bundle that says nothing about anchors takes none away.
		next.Anchors = e.Anchors
	}
	if order > 0 {
		return &Endpoint{Bundle: &next, Root: e.Root, Floors: e.floors(), Predecessors: e.predecessors(), Earlier: e.earlier(b), Lifeboat: e.Lifeboat}, nil
	}
	// Whom it was sealed to does not matter: the same identity may have been
	// issued again to a passphrase.
	next.Recipient = e.Recipient
	same, err := equal(&next, e.Bundle)
	if err != nil || same {
		return nil, err
	}
	return nil, fmt.Errorf("bundle of %s is %w, and says something else", b.Identity, ErrNotLater)
}

func equal(a, b *bundle.Bundle) (bool, error) {
	x, err := a.Payload()
	if err != nil {
		return false, err
	}
	y, err := b.Payload()
	return bytes.Equal(x, y), err
}

// floors returns the highest floors that any bundle so far gave.
func (e *Endpoint) floors() []bundle.Peer {
	out := slices.Clone(e.Floors)
	for _, p := range e.Peers {
		if at := find(out, p.Name); at < 0 {
			out = append(out, p)
		} else {
			out[at] = later(out[at], p)
		}
	}
	return out
}

// predecessors returns those of the endpoint's successor. A CLM listens to
// nobody.
func (e *Endpoint) predecessors() []Predecessor {
	if len(e.Peers) == 0 {
		return nil
	}
	own := Predecessor{Params: e.Params, Peers: e.ownPeers()}
	out := slices.Clone(e.Predecessors)
	if slices.ContainsFunc(out, func(p Predecessor) bool { return p.Params.Equal(own.Params) && slices.Equal(p.Peers, own.Peers) }) {
		return out
	}
	if len(out) == maxPredecessors {
		out = slices.Delete(out, 1, 2)
	}
	return append(out, own)
}

// ownPeers returns the peers of the last bundle with their floors.
func (e *Endpoint) ownPeers() []bundle.Peer {
	out := slices.Clone(e.Peers)
	for i, p := range out {
		if at := find(e.Floors, p.Name); at >= 0 {
			out[i] = later(p, e.Floors[at])
		}
	}
	return out
}

// Known returns the parameters under which a CLM may prove itself, those of
// the last bundle first.
func (e *Endpoint) Known() []*ibc.Params {
	out := []*ibc.Params{e.Params}
	for _, p := range e.Predecessors {
		if !slices.ContainsFunc(out, p.Params.Equal) {
			out = append(out, p.Params)
		}
	}
	return out
}

// Floor returns the lowest (epoch, generation) that is accepted from a CLM
// name, as far as bundles say: while there are predecessors, the lowest that
// one of them or the last bundle accepts. ok is false for a name that none lists.
func (e *Endpoint) Floor(name string) (floor bundle.Peer, ok bool) {
	lower := func(params *ibc.Params, peers []bundle.Peer) {
		at := find(peers, name)
		if at < 0 {
			return
		}
		// What is of another epoch does not verify under these parameters.
		p := later(peers[at], bundle.Peer{Name: name, Epoch: params.Epoch(), Generation: 1})
		if !ok || compare(p, floor) < 0 {
			floor, ok = p, true
		}
	}
	lower(e.Params, e.ownPeers())
	for _, p := range e.Predecessors {
		lower(p.Params, p.Peers)
	}
	return floor, ok
}

// Settled returns what the endpoint is after a handshake in which it proved
// one identity and a CLM another: without predecessors, if both are of the last
// bundle. It returns nil if nothing changes.
func (e *Endpoint) Settled(own, clm ibc.Identity) *Endpoint {
	if len(e.Predecessors) == 0 || own != e.Identity || clm.Role != ibc.RoleCLM || clm.Epoch != e.Params.Epoch() {
		return nil
	}
	peers := e.ownPeers()
	at := find(peers, clm.Name)
	if at < 0 || compare(bundle.Peer{Epoch: clm.Epoch, Generation: clm.Generation}, peers[at]) < 0 {
		return nil
	}
	return &Endpoint{Bundle: e.Bundle, Root: e.Root, Floors: e.Floors, Lifeboat: e.Lifeboat}
}

func find(peers []bundle.Peer, name string) int {
	return slices.IndexFunc(peers, func(p bundle.Peer) bool { return p.Name == name })
}

func compare(a, b bundle.Peer) int {
	return ibc.CompareVersion(a.Epoch, a.Generation, b.Epoch, b.Generation)
}

func later(a, b bundle.Peer) bundle.Peer {
	if compare(a, b) < 0 {
		return b
	}
	return a
}
