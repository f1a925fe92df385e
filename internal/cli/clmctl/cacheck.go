package clmctl

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/scep"
)

func (a *app) caCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check [NAME...]",
		Short: "Ask each CA whether it answers, and with the certificates that were pinned",
		Long: `check asks the CA in use, those of a rollover and the failover CAs for their
capabilities and certificates, as an enrolment does before everything else, and
holds the answer against what was pinned. No certificate is asked for: a CA that
answers may still reject enrolments. Whether it is left alone for that, and why,
is said too.`,
		Example: "  clmctl ca check\n  clmctl ca check -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.openExisting(cmd)
			if err != nil {
				return err
			}
			f, err := s.dir.authorities()
			if err != nil {
				return err
			}
			chosen := f.all()
			if len(args) > 0 {
				chosen = nil
				for _, name := range args {
					ca, err := f.find(name)
					if err != nil {
						return err
					}
					chosen = append(chosen, ca)
				}
			}
			return a.runCACheck(cmd.Context(), s, f, chosen)
		},
	}
}

// caState is what a check of a CA found.
type caState struct {
	Name      string  `json:"name"`
	Role      string  `json:"role"` // in-use, next or failover
	URL       string  `json:"url"`
	OK        bool    `json:"ok"`
	LatencyMS float64 `json:"latency_ms"` // of both exchanges; 0 if it did not answer
	NotAfter  string  `json:"not_after"`  // of the pinned certificate that ends first
	Error     *string `json:"error"`

	// What enrolments found out about it: see the breaker in docs/renewal.md.
	Breaker     enrol.BreakerState `json:"breaker"`
	Until       *string            `json:"left_alone_until"` // null: it is not
	LastFailure *string            `json:"last_failure"`

	err error
}

func (a *app) runCACheck(ctx context.Context, s *site, f authorityJSON, chosen []authority) error {
	states := []caState{}
	t := clikit.Table{Columns: []clikit.Column{
		{Name: "name"}, {Name: "role"}, {Name: "answer"}, {Name: "latency"}, {Name: "not_after"}, {Name: "error"}, {Name: "url", Wide: true},
	}}
	known, done := s.breakers(ctx)
	defer done()
	var failures []error
	for _, ca := range chosen {
		state := a.checkCA(ctx, s, ca)
		b := known(ca.Name)
		state.Breaker, state.Until, state.LastFailure = b.State, optionalTime(b.Until), optional(clikit.OneLine(b.LastError))
		if b.State != enrol.BreakerClosed {
			a.note("%s", leftAlone(b))
		}
		state.Role = f.role(ca)
		answer, latency := "no", "-"
		if state.OK {
			answer = "yes"
		} else {
			failures = append(failures, fmt.Errorf("CA %s: %w", ca.Name, state.err))
		}
		if state.LatencyMS > 0 {
			latency = fmt.Sprintf("%.0f ms", state.LatencyMS)
		}
		states = append(states, state)
		t.Rows = append(t.Rows, []string{state.Name, state.Role, answer, latency, state.NotAfter, deref(state.Error), state.URL})
	}
	if err := clikit.Render(a.Out, a.Output, states, t); err != nil {
		return err
	}
	return explainCA(errors.Join(failures...))
}

// breakers returns who knows the CAs' breakers; without an inventory all are
// closed. done gives it back.
func (s *site) breakers(ctx context.Context) (known func(ca string) enrol.Breaker, done func()) {
	unknown := func(ca string) enrol.Breaker { return enrol.Breaker{CA: ca, State: enrol.BreakerClosed} }
	inventory, err := s.dir.inventory(ctx, true)
	if err != nil {
		return unknown, func() {}
	}
	return func(ca string) enrol.Breaker {
		b, err := inventory.Breaker(ctx, ca)
		if err != nil {
			return unknown(ca)
		}
		return b
	}, func() { _ = inventory.Close() } // it was only read
}

// leftAlone says that a CA is not asked, and why.
func leftAlone(b enrol.Breaker) string {
	return fmt.Sprintf("enrolments leave CA %s alone until %s (%s): %s", b.CA, stamp(b.Until), b.Class, clikit.OneLine(b.LastError))
}

// role is what a CA is there for.
func (f authorityJSON) role(ca authority) string {
	switch i := slices.IndexFunc(f.inUse(), func(used authority) bool { return used.Name == ca.Name }); i {
	case 0:
		return "in-use"
	case 1:
		return "next"
	}
	return "failover"
}

// errOtherCertificates: a CA sends other certificates than those pinned.
var errOtherCertificates = errors.New("it sends other certificates than those that were pinned")

func (a *app) checkCA(ctx context.Context, s *site, ca authority) caState {
	state := caState{Name: ca.Name, URL: ca.URL}
	if first := earliestEnd(append([][]byte{ca.Anchor}, ca.Certificates...)); !first.IsZero() {
		state.NotAfter = stamp(first)
	}
	began := a.Now()
	info, err := scep.Fetch(ctx, ca.URL, scep.HTTPOptions{Timeout: s.CATimeout}, a.Now)
	if err == nil {
		state.LatencyMS = float64(a.Now().Sub(began).Microseconds()) / 1000
		known := func(c *x509.Certificate) bool {
			return slices.ContainsFunc(append([][]byte{ca.Anchor}, ca.Certificates...), func(der []byte) bool { return bytes.Equal(der, c.Raw) })
		}
		if !slices.ContainsFunc(info.Certificates, known) {
			err = errOtherCertificates
		}
	}
	state.OK, state.err = err == nil, err
	if err != nil {
		state.Error = optional(clikit.OneLine(err.Error()))
	}
	return state
}

// earliestEnd returns the end of the certificate, of those in DER, that ends
// first; the zero time if none of them parses.
func earliestEnd(certificates [][]byte) time.Time {
	var first time.Time
	for _, der := range certificates {
		c, err := x509.ParseCertificate(der)
		if err == nil && (first.IsZero() || c.NotAfter.Before(first)) {
			first = c.NotAfter
		}
	}
	return first
}
