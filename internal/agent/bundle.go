package agent

import (
	"context"
	"errors"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/lifeboat"
	"github.com/edgeclm/edgeclm/internal/provision"
)

// Bundle implements the service that takes a bundle of a later epoch or
// generation, sealed to this device's recipient. Once it returns, the device is
// who the bundle says; what its predecessors allowed stays allowed until
// Settle. The one that was accepted last is accepted again.
func (a *Agent) Bundle(ctx context.Context, peer ibc.Identity, sealed []byte) error {
	return a.serve(ctx, peer, func(state) error {
		opener, _, err := a.dir.provisioned().Recipient()
		if err != nil {
			return err
		}
		b, err := bundle.Open(sealed, opener)
		if err != nil {
			return unacceptable(err)
		}
		_, err = a.become(b, peer.String())
		return unacceptable(err)
	})
}

// Take is Bundle for an operator on the device: it takes the content of a
// bundle that bundle.Open returned, to whomever it was sealed. Errors are those of
// provision.Endpoint.Accept.
func (a *Agent) Take(ctx context.Context, b *bundle.Bundle) (changed bool, err error) {
	err = a.alone(ctx, func(state) error {
		changed, err = a.become(b, "an operator of the device")
		return err
	})
	return changed, err
}

func (a *Agent) become(b *bundle.Bundle, from string) (changed bool, err error) {
	before := a.Identity()
	changed, err = a.succeed(func(e *provision.Endpoint) (*provision.Endpoint, error) { return e.Accept(b) })
	if changed {
		a.cfg.Log.Info("took a later identity", "identity", b.Identity, "before", before, "from", from)
	}
	return changed, err
}

// unacceptable turns what is wrong with a bundle into a refusal; other errors
// are the device's own.
func unacceptable(err error) error {
	for _, e := range []struct {
		cause   error
		problem enrol.Problem
	}{
		{provision.ErrNotLater, enrol.ProblemConflict},
		{lifeboat.ErrSerial, enrol.ProblemConflict},
		{lifeboat.ErrRecoveryKey, enrol.ProblemForbidden},
		{lifeboat.ErrSignature, enrol.ProblemUnverified},
		{lifeboat.ErrFormat, enrol.ProblemBadRequest},
		{provision.ErrOther, enrol.ProblemForbidden},
		{bundle.ErrParams, enrol.ProblemForbidden},
		{bundle.ErrRecipient, enrol.ProblemForbidden},
		{ibc.ErrSignature, enrol.ProblemUnverified},
		{ibc.ErrKey, enrol.ProblemUnverified},
		{bundle.ErrFormat, enrol.ProblemBadRequest},
		{bundle.ErrVersion, enrol.ProblemBadRequest},
		{ibc.ErrEncoding, enrol.ProblemBadRequest},
	} {
		if errors.Is(err, e.cause) {
			return refuse(e.problem, "%v", err)
		}
	}
	return err
}
