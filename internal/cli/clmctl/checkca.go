package clmctl

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"time"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/scep"
)

// checkAuthorities looks at the CAs of ca.json and asks each of them for its
// certificates, which costs them nothing.
func (c *checkup) checkAuthorities(ctx context.Context) {
	file, err := c.site.dir.authorities()
	if err != nil {
		c.failError("CA", "clmctl ca add URL", err)
		return
	}
	for i, ca := range file.all() {
		check := "CA " + ca.Name
		c.checkPinned(check, ca)
		c.checkChallenge(check, ca)
		date, skew := c.askCA(ctx, check, ca)
		c.checkBreaker(ctx, check, ca)
		if i == 0 {
			c.caDate, c.caSkew = date, skew
		}
	}
}

// checkBreaker warns of a CA that enrolments leave alone.
func (c *checkup) checkBreaker(ctx context.Context, check string, ca authority) {
	if c.inventory == nil {
		return
	}
	if b, err := c.inventory.Breaker(ctx, ca.Name); err == nil && b.State != enrol.BreakerClosed {
		c.warn(check, "mend what it says; the next enrolment then finds out, and the others follow", "%s", leftAlone(b))
	}
}

// checkPinned looks at the certificates that were pinned when the CA was added.
func (c *checkup) checkPinned(check string, ca authority) {
	anchor, err := ca.anchor()
	if err != nil {
		c.failError(check, "clmctl ca add "+ca.URL, err)
		return
	}
	c.checkExpiry(check+" anchor", "move the fleet to the CA's next root in time: docs/ca-rollover.md", anchor)
	for _, der := range ca.Certificates {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			c.failError(check, "clmctl ca add "+ca.URL, err)
			continue
		}
		if !bytes.Equal(der, ca.Anchor) {
			c.checkExpiry(check+" "+roleOf(certificate), "once the CA has a new one: clmctl ca add "+ca.URL, certificate)
		}
	}
}

func roleOf(c *x509.Certificate) string {
	if c.IsCA {
		return "issuing certificate"
	}
	return "RA certificate"
}

// checkExpiry judges how long a certificate still lasts, relative to how long
// it was made for: that of a lab may live for minutes.
func (c *checkup) checkExpiry(check, remedy string, certificate *x509.Certificate) {
	left := certificate.NotAfter.Sub(c.Now())
	early := min(c.site.Alerts.CAExpiry, certificate.NotAfter.Sub(certificate.NotBefore)/5)
	text := fmt.Sprintf("%s, until %s", clikit.OneLine(certificate.Subject.String()), stamp(certificate.NotAfter))
	switch {
	case left <= 0:
		c.fail(check, remedy, "%s: it has expired", text)
	case c.Now().Before(certificate.NotBefore):
		c.fail(check, "set the clock of this machine: timedatectl set-ntp true", "%s: it begins at %s only", text, stamp(certificate.NotBefore))
	case left < early:
		c.warn(check, remedy, "%s: %s left", text, about(left))
	default:
		c.ok(check, "%s", text)
	}
}

// about is a long duration as people say it.
func about(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", d/time.Minute)
	}
	return d.Round(time.Second).String()
}

func (c *checkup) checkChallenge(check string, ca authority) {
	if ca.ChallengeFile == "" {
		return
	}
	info, err := os.Stat(c.site.dir.path(ca.ChallengeFile))
	if err == nil && info.Size() == 0 {
		err = fmt.Errorf("%s is empty", ca.ChallengeFile)
	}
	if err != nil {
		c.fail(check, "clmctl ca add "+ca.URL+" --challenge-file FILE", "its challenge: %v", err)
	}
}

// askCA asks a CA what it can and which certificates it has, and returns what
// its clock shows and how far ours is ahead of it.
func (c *checkup) askCA(ctx context.Context, check string, ca authority) (date time.Time, skew time.Duration) {
	asked := c.Now()
	info, err := scep.Fetch(ctx, ca.URL, scep.HTTPOptions{Timeout: c.site.CATimeout}, c.Now)
	took := c.Now().Sub(asked)
	if err != nil {
		c.failError(check, "check that the CA runs and that a firewall lets this machine reach "+ca.URL, explainCA(err))
		return date, 0
	}
	c.ok(check, "it answers in %v", took.Round(time.Millisecond))
	var unknown []string
	for _, got := range info.Certificates {
		if !pinned(ca, got.Raw) {
			unknown = append(unknown, clikit.OneLine(got.Subject.String()))
		}
	}
	if len(unknown) > 0 {
		c.warn(check, "if the CA's operator confirms them: clmctl ca add "+ca.URL, "it shows certificates that were not pinned here: %s", few(unknown))
	}
	for _, w := range info.Warnings {
		c.warn(check, "ask the CA's operator", "%s", w)
	}
	if info.Date.IsZero() {
		return date, 0
	}
	// A date header is rounded down to the second, and was made on the way.
	return info.Date, asked.Add(took / 2).Sub(info.Date.Add(time.Second / 2))
}

func pinned(ca authority, der []byte) bool {
	if bytes.Equal(ca.Anchor, der) {
		return true
	}
	for _, known := range ca.Certificates {
		if bytes.Equal(known, der) {
			return true
		}
	}
	return false
}
