package conformance

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Outcome is what came of a rule.
type Outcome string

// The outcomes. A warning is something that works, but that the document asks
// for in another way, or that costs something.
const (
	Pass Outcome = "pass"
	Warn Outcome = "warn"
	Fail Outcome = "fail"
	Skip Outcome = "skip"
)

// Finding is what came of one rule.
type Finding struct {
	Rule    string // its name, as dtls.cookie
	Section string // of docs/protocol.md, and of the standard behind it
	Says    string // the rule in one line
	Outcome Outcome
	Detail  string // what the device did, or why nothing was tried; may be empty
}

// Target is a device and how to speak to it.
type Target struct {
	Address     string          // host:port
	Identity    ibc.Identity    // that it has to prove, or a later one of its name
	Params      []*ibc.Params   // that verify it, one for each epoch in use
	Certificate tls.Certificate // handshake key and binding certificate of a CLM
	Random      io.Reader

	// Slot also tests what needs the device's pending slot, which is then the
	// CLM's for up to an hour, or until its next enrolment.
	Slot bool
	// CA is the trust anchor, in DER, that CSR requests name for a device with
	// trust anchors of its own; nil: such a device is not asked for a CSR.
	CA []byte

	// Patience is how long a response may take, 0 means DefaultPatience.
	Patience time.Duration
	// Repeat is how long a repeated request is held back, so that an answer
	// made anew shows a later time; 0 means DefaultRepeat, less than 0 not at all.
	Repeat time.Duration
}

// Defaults of Target.
const (
	DefaultPatience = 30 * time.Second
	DefaultRepeat   = 1100 * time.Millisecond
)

// rule is one rule of the document and how it is tested.
type rule struct {
	name    string
	section string
	says    string
	slot    bool // it needs the pending slot
	test    func(context.Context, *tester) verdict
}

// verdict is what a test says; the zero value is a pass.
type verdict struct {
	outcome Outcome
	detail  string
}

func passed(format string, args ...any) verdict { return verdict{Pass, fmt.Sprintf(format, args...)} }
func warned(format string, args ...any) verdict { return verdict{Warn, fmt.Sprintf(format, args...)} }
func failed(format string, args ...any) verdict { return verdict{Fail, fmt.Sprintf(format, args...)} }
func skipped(format string, args ...any) verdict {
	return verdict{Skip, fmt.Sprintf(format, args...)}
}

// errOffline says that there is no connection to test a rule on.
var errOffline = errors.New("no handshake completes")

// judge turns a failure of the channel into a verdict.
func judge(err error) verdict {
	switch {
	case err == nil:
		return verdict{outcome: Pass}
	case errors.Is(err, errOffline):
		return skipped("%v", err)
	}
	return failed("%v", err)
}

// rules returns all rules, in the order in which they are tested.
func rules() []rule {
	var all []rule
	for _, some := range [][]rule{handshakeRules(), bindingRules(), coapRules(), blockRules(), statusRules(), payloadRules(), slotRules()} {
		all = append(all, some...)
	}
	return all
}

// tester is a test at work.
type tester struct {
	Target
	main   *channel // the connection on which most rules are tested; nil before the first
	first  *flight  // what was seen of the first handshake
	second *bound   // of another handshake; nil before, or if it has none
	// offline is why the first handshake did not complete.
	offline error
	noPing  bool // the device answers no ping, busy or not

	slot slotState
}

// ErrSilent is wrapped by the error of Run if nothing answers at the address.
var ErrSilent = errors.New("nobody answers")

// Run tests every rule and hands over each finding as it is made. The error
// says that there is nothing to test: nobody answers, or the context has ended.
func Run(ctx context.Context, target Target, report func(Finding)) error {
	return run(ctx, target, rules(), report)
}

func run(ctx context.Context, target Target, rules []rule, report func(Finding)) error {
	t := &tester{Target: target}
	if t.Patience == 0 {
		t.Patience = DefaultPatience
	}
	if t.Repeat == 0 {
		t.Repeat = DefaultRepeat
	}
	defer t.hangUp()
	c, seen, err := t.connect(ctx, proper)
	if err != nil && seen.datagrams == 0 {
		return fmt.Errorf("%w at %s: %w", ErrSilent, target.Address, err)
	}
	t.main, t.first, t.offline = c, seen, err
	for _, r := range rules {
		f := Finding{Rule: r.name, Section: r.section, Says: r.says}
		v := t.try(ctx, r)
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("conformance test of %s: %w", target.Identity, err)
		}
		f.Outcome, f.Detail = v.outcome, v.detail
		if f.Outcome == "" {
			f.Outcome = Pass
		}
		report(f)
	}
	return nil
}

// try tests one rule.
func (t *tester) try(ctx context.Context, r rule) verdict {
	if r.slot {
		if why := t.slotUnusable(ctx); why != "" {
			return skipped("%s", why)
		}
	}
	return r.test(ctx, t)
}

// hangUp ends the connection.
func (t *tester) hangUp() {
	if t.main != nil {
		t.main.close()
		t.main = nil
	}
}

// draw returns random bytes.
func (t *tester) draw(n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(t.Random, b); err != nil {
		return nil, fmt.Errorf("draw random bytes: %w", err)
	}
	return b, nil
}
