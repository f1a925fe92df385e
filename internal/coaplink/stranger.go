package coaplink

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/lifeboat"
)

// A stranger is a peer whose certificate says that it is bound to no identity. It is let in
// for one thing, to deliver a lifeboat: whoever has stolen the master secret may
// have seen to it that the device accepts no CLM of ours any more, and proves an
// identity that we cannot verify. A CLM that was authenticated under a root that
// a lifeboat has left may do no more than that either.

// restricted reports whether the peer may only deliver a lifeboat.
func (s *session) restricted() bool { return s.stranger || s.void() }

// void reports whether a lifeboat has changed the root of trust since the
// handshake.
func (s *session) void() bool { return s.root != s.server.Self.Root() }

// strange refuses what is no lifeboat.
func (s *session) strange() *enrol.DeviceError {
	if !s.stranger {
		return &enrol.DeviceError{Problem: enrol.ProblemReplaced, Detail: "this device has another root of trust now, connect again"}
	}
	return &enrol.DeviceError{Problem: enrol.ProblemForbidden, Detail: "a peer without identity may deliver a lifeboat to " + pathBundle + " and nothing else"}
}

// name is the peer in words.
func (s *session) name() string {
	if s.stranger {
		return "a stranger at " + s.source.Addr().String()
	}
	return s.peer.String()
}

// deliversLifeboat reports whether a request is a lifeboat's, as far as its
// first block tells; of one that is none no block is kept.
func deliversLifeboat(res resource, block1 *block, body []byte) bool {
	return res.path == pathBundle && (block1 != nil && block1.num > 0 || lifeboat.Is(body))
}

// bundle takes a bundle, or a lifeboat with one behind it.
func (v *serving) bundle(ctx context.Context, from *session, in content) ([]byte, error) {
	if !lifeboat.Is(in.body) {
		if from.restricted() {
			return nil, from.strange()
		}
		return nil, v.Services.Bundle(ctx, from.peer, in.body)
	}
	class := stranger
	if !from.stranger {
		class = trusted
	}
	if err := v.gate.lifeboat(ctx, class); err != nil {
		return nil, fmt.Errorf("lifeboat of %s: %w", from.name(), err)
	}
	if err := v.Services.Lifeboat(ctx, from.name(), in.body); err != nil {
		return nil, err
	}
	v.abandon(from)
	return nil, nil
}

// abandon closes the sessions of a root that is void, but for the one that has
// an answer to come.
func (v *serving) abandon(but *session) {
	for _, s := range v.all() {
		if s != but && !s.stranger && s.void() {
			v.Log.Info("closing the session of a void root", "peer", s.name())
			s.close()
		}
	}
}

// admitStranger makes a stranger's session one of ours. There are few, one from
// one source, and none takes the place of a CLM's. In the last place the oldest
// gives way, but only after it had the time to deliver what it came for: else
// strangers who come fast enough would keep everybody out.
func (v *serving) admitStranger(s *session) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	var others []*session
	for other := range v.sessions {
		switch {
		case !other.stranger:
		case network(other.source.Addr()) == network(s.source.Addr()):
			other.close()
		default:
			others = append(others, other)
		}
	}
	if len(others) >= v.limits.Strangers {
		oldest := slices.MinFunc(others, func(a, b *session) int { return cmp.Compare(a.begun, b.begun) })
		if v.uptime()-oldest.begun < v.limits.StrangerFor {
			return fmt.Errorf("%w: %d strangers are connected", errBusy, len(others))
		}
		oldest.close()
	}
	v.enter(s)
	return nil
}
