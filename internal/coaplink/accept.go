package coaplink

import (
	"bytes"
	"fmt"

	"github.com/edgeclm/edgeclm/internal/ibc"
)

// verify checks the binding's signature; it costs a product of two pairings.
func (p *presented) verify(params *ibc.Params) error {
	m, err := BindingMessage(p.binding.Identity, p.spki, p.binding.Context)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBinding, err)
	}
	if err := params.Verify(p.binding.Identity, m, p.binding.Signature); err != nil {
		return fmt.Errorf("%w: %w", ErrBinding, err)
	}
	return nil
}

// findParams finds the parameters that the binding names. They belong to one epoch, and the
// identity must be of the same.
func (p *presented) findParams(known []*ibc.Params) (*ibc.Params, error) {
	for _, candidate := range known {
		if candidate.ID() != p.binding.ParamsID {
			continue
		}
		if candidate.Epoch() != p.binding.Identity.Epoch {
			return nil, fmt.Errorf("%w: %s, but its parameters are those of epoch %d", ErrBinding, p.binding.Identity, candidate.Epoch())
		}
		return candidate, nil
	}
	return nil, fmt.Errorf("%w: %s comes from another PKG, or from an epoch unknown here (parameters %x)",
		ErrBinding, p.binding.Identity, p.binding.ParamsID[:8])
}

// acceptDevice is the CLM's rule: the device that is wanted or a later
// (epoch, generation) of it, bound to this very handshake. The order of checks
// leaves the pairing to the end.
func acceptDevice(certificates [][]byte, known []*ibc.Params, want ibc.Identity, clientRandom [ContextSize]byte) (*presented, error) {
	p, err := parsePresented(certificates)
	if err != nil {
		return nil, err
	}
	params, err := p.findParams(known)
	if err != nil {
		return nil, err
	}
	got := p.binding.Identity
	if got.Role != ibc.RoleDevice || got.Name != want.Name {
		return nil, fmt.Errorf("%w: it names %s", ErrBinding, got)
	}
	if got.Compare(want) < 0 {
		return nil, fmt.Errorf("%w: it names %s, an earlier key than the inventory knows", ErrBinding, got)
	}
	return p, p.verifyDevice(params, clientRandom)
}

// verifyDevice checks that a device made the binding, for this very handshake.
func (p *presented) verifyDevice(params *ibc.Params, clientRandom [ContextSize]byte) error {
	if !bytes.Equal(p.binding.Context, clientRandom[:]) {
		return fmt.Errorf("%w: it was made for another handshake", ErrBinding)
	}
	return p.verify(params)
}

// acceptCLM is the device's rule up to the point where it would cost a
// pairing: it returns the parameters to verify with, or nil if the certificate
// was verified before.
func acceptCLM(certificates [][]byte, known []*ibc.Params, peers PeerStore) (*presented, *ibc.Params, error) {
	p, err := parsePresented(certificates)
	if err != nil {
		return p, nil, err
	}
	params, err := p.findParams(known)
	if err != nil {
		return p, nil, err
	}
	got := p.binding.Identity
	if got.Role != ibc.RoleCLM {
		return p, nil, fmt.Errorf("%w: %s has not the role %s", ErrBinding, got, ibc.RoleCLM)
	}
	epoch, generation, ok := peers.Floor(got.Name)
	if !ok {
		return p, nil, fmt.Errorf("%w: %s is none of the CLM names of this device", ErrBinding, got)
	}
	if ibc.CompareVersion(got.Epoch, got.Generation, epoch, generation) < 0 {
		return p, nil, fmt.Errorf("%w: %s has been replaced by e%d.g%d", ErrBinding, got, epoch, generation)
	}
	if len(p.binding.Context) != 0 {
		return p, nil, fmt.Errorf("%w: the binding of a CLM has no context", ErrBinding)
	}
	if cached, ok := peers.Cached(p.sum); ok && cached == got {
		return p, nil, nil
	}
	return p, params, nil
}
