package conformance

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
)

// examine returns the findings that are no passes, as "outcome rule".
func examine(t *testing.T, target Target, rules []rule) (map[string]Finding, []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	all := map[string]Finding{}
	var bad []string
	if err := run(ctx, target, rules, func(f Finding) {
		all[f.Rule] = f
		if f.Outcome == Fail || f.Outcome == Warn {
			bad = append(bad, string(f.Outcome)+" "+f.Rule)
		}
	}); err != nil {
		t.Fatal(err)
	}
	return all, bad
}

// TestTheProductConforms: the product's device passes every rule, directly and
// through an impersonator in which nothing is broken.
func TestTheProductConforms(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for name, address := range map[string]string{"directly": b.address, "impersonated": b.impersonate(t, breakage{}).listener.Addr().String()} {
		findings, _ := examine(t, b.target(address), rules())
		for _, r := range rules() {
			if f := findings[r.name]; f.Outcome != Pass {
				t.Errorf("%s: %s: %s: %s", name, r.name, f.Outcome, f.Detail)
			}
		}
	}
}

// TestEveryRule breaks a device in one way after the other: exactly the rule
// that is broken fails.
func TestEveryRule(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	table := breakages()
	for _, r := range rules() {
		broken, ok := table[r.name]
		if !ok {
			t.Errorf("no test breaks the rule %s", r.name)
			continue
		}
		delete(table, r.name)
		t.Run(r.name, func(t *testing.T) {
			p := b.impersonate(t, broken.breakage)
			findings, bad := examine(t, b.target(p.listener.Addr().String()), related(r.name, broken.too))
			want := []string{string(Fail) + " " + r.name}
			if broken.warns {
				want = []string{string(Warn) + " " + r.name}
			}
			for _, more := range broken.too {
				want = append(want, string(Fail)+" "+more)
			}
			if !slices.Equal(bad, want) {
				for _, f := range findings {
					if f.Outcome != Pass {
						t.Logf("%s %s: %s", f.Outcome, f.Rule, f.Detail)
					}
				}
				t.Errorf("broken are %q, want %q", bad, want)
			}
		})
	}
	for name := range table {
		t.Errorf("there is no rule %s", name)
	}
}

// soak tests all rules against each broken device, not only the related ones.
var soak = flag.Bool("soak", false, "test all rules against each broken device")

// related are the rules of the same subject, and of those that cannot hold either.
func related(name string, too []string) []rule {
	all := rules()
	subject := func(name string) string {
		subject, _, _ := strings.Cut(name, ".")
		return subject
	}
	return slices.DeleteFunc(all, func(r rule) bool {
		if *soak || r.name == name || slices.Contains(too, r.name) || subject(r.name) == subject(name) {
			return false
		}
		// Those about the slot build on each other.
		return !r.slot || !slices.ContainsFunc(slotRules(), func(s rule) bool { return s.name == name || slices.Contains(too, s.name) })
	})
}

// TestNobodyAnswers: there is nothing to say about a device that is away.
func TestNobodyAnswers(t *testing.T) {
	t.Parallel()
	gone, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := gone.LocalAddr().String()
	_ = gone.Close()
	err = Run(t.Context(), Target{Address: address, Random: rand.Reader}, func(f Finding) { t.Errorf("%+v", f) })
	if !errors.Is(err, ErrSilent) {
		t.Errorf("error %v", err)
	}
}

// TestProductiveDevice: without being asked for it, the test takes no slot, and
// a device with trust anchors whose CA is not known here is not asked for a CSR.
func TestProductiveDevice(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for name, change := range map[string]func(*Target) string{
		"no slot": func(target *Target) string {
			target.Slot = false
			return b.address
		},
		"unknown anchor": func(*Target) string {
			return b.impersonate(t, breakage{respond: func(_ *impersonator, request, response *message.Message) bool {
				if path(request) == "/status" {
					// 10: the hash of one anchor instead of none
					response.Payload = bytes.Replace(response.Payload, []byte{10, 0x80}, append([]byte{10, 0x81, 0x58, 32}, make([]byte, 32)...), 1)
				}
				return true
			}}).listener.Addr().String()
		},
	} {
		target := b.target("")
		target.Address = change(&target)
		findings, bad := examine(t, target, rules())
		for _, r := range rules() {
			if f := findings[r.name]; (f.Outcome == Skip) != r.slot {
				t.Errorf("%s: %s: %s %s", name, r.name, f.Outcome, f.Detail)
			}
		}
		if len(bad) > 0 {
			t.Errorf("%s: %q", name, bad)
		}
	}
	s, err := b.agentStatus()
	if err != nil || s.Enrolment != nil {
		t.Errorf("an enrolment is left: %+v, %v", s, err)
	}
}

// TestRuleNames: each rule has a name of its own, and says where it comes from.
func TestRuleNames(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range rules() {
		if seen[r.name] || r.section == "" || r.says == "" || r.test == nil || !strings.Contains(r.name, ".") {
			t.Errorf("rule %q is not whole, or there twice", r.name)
		}
		seen[r.name] = true
	}
}
