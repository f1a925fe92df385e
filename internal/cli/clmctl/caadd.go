package clmctl

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/scep"
)

type caAddOptions struct {
	url, name, challengeFile, fingerprint string
	roots                                 []string
	failover                              bool
}

func (a *app) caAddCommand() *cobra.Command {
	var o caAddOptions
	cmd := &cobra.Command{
		Use:   "add URL",
		Short: "Use the CA whose SCEP service is at URL",
		Long: `add asks a SCEP service for its certificates, pins them, and makes the CA the
one in use, in place of an earlier one. The trust anchor is the root or issuing
CA certificate with --fingerprint; without it, the fingerprint is shown and has
to be confirmed (--yes confirms).

A challenge file is copied into the data directory, since renewals by cron need
it. The challenge travels in each device's certificate request: one that the
whole fleet shares becomes known to every device.

With --failover the CA is asked when the one in use cannot be had or gives
certificates that do not fit, and only for devices that list its trust anchor
(pkg-offline anchor makes them). Several are asked in the order in which they
were added.`,
		Example: "  clmctl ca add http://ca.example/scep --challenge-file challenge --fingerprint sha256:2f0c…\n  clmctl ca add http://ca2.example/scep --failover --fingerprint sha256:77e1…",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.open(cmd)
			if err != nil {
				return err
			}
			o.url = args[0]
			return explainCA(a.runCAAdd(cmd.Context(), s, o))
		},
	}
	o.register(cmd)
	cmd.Flags().BoolVar(&o.failover, "failover", false, "ask this CA when the one in use cannot be had")
	return cmd
}

// register adds the flags that say which CA it is.
func (o *caAddOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "name of the CA in the inventory (default: the host of URL)")
	f.StringVar(&o.challengeFile, "challenge-file", "", "file with the challenge password, - for standard input")
	f.StringVar(&o.fingerprint, "fingerprint", "", "sha256:HEX of the root or issuing CA certificate")
	f.StringArrayVar(&o.roots, "root", nil, "file with CA certificates in PEM or DER that the CA does not send itself (repeat for more)")
}

func (a *app) runCAAdd(ctx context.Context, s *site, o caAddOptions) error {
	if f, err := s.dir.authorities(); err == nil && f.Rollover != nil {
		return explainRollover(fmt.Errorf("%w, from CA %s to CA %s", errRollover, f.Authorities[0].Name, f.Authorities[1].Name))
	}
	identity, err := s.dir.identity()
	if err != nil {
		return err
	}
	defer identity.Destroy()
	ca, challenge, err := a.askAuthority(ctx, s, o)
	if err != nil {
		return err
	}
	defer clear(challenge)
	if err := a.saveAuthority(s.dir, ca, challenge, identity.Identity.Name, o.failover); err != nil {
		return err
	}
	f, err := s.dir.authorities()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(f.all(), func(saved authority) bool { return saved.Name == ca.Name })
	return a.renderAuthority(f.all()[i])
}

// askAuthority asks a CA for its certificates, has its anchor confirmed, and
// reads its challenge (nil: it wants none), which the caller clears.
func (a *app) askAuthority(ctx context.Context, s *site, o caAddOptions) (_ authority, challenge []byte, err error) {
	ca, err := newAuthority(o)
	if err != nil {
		return ca, nil, err
	}
	vouched, err := readCertificates(o.roots)
	if err != nil {
		return ca, nil, err
	}
	challenge, err = a.readChallenge(ctx, o.challengeFile)
	if err != nil {
		return ca, nil, err
	}
	defer func() {
		if err != nil {
			clear(challenge)
		}
	}()
	info, err := scep.Fetch(ctx, o.url, scep.HTTPOptions{Timeout: s.CATimeout}, a.Now)
	if err != nil {
		return ca, nil, err
	}
	chosen, err := scep.SelectAnchor(info.Certificates, vouched, o.fingerprint)
	if err != nil {
		return ca, nil, err
	}
	for _, w := range append(info.Warnings, chosen.Warnings...) {
		a.warn("%s", w)
	}
	if err := a.confirmAnchor(chosen.Anchor, o.fingerprint); err != nil {
		return ca, nil, err
	}
	ca.Anchor, ca.Capabilities, ca.AddedAt = chosen.Anchor.Raw, info.Capabilities, a.Now().UTC()
	for _, c := range chosen.Certificates() {
		ca.Certificates = append(ca.Certificates, c.Raw)
	}
	if challenge != nil {
		a.warn("a challenge that the whole fleet shares becomes known to every device; prefer a CA that accepts this CLM's RA certificate, or one-time challenges")
	}
	return ca, challenge, nil
}

// saveAuthority keeps the CA, and makes the key that signs the requests to it.
func (a *app) saveAuthority(d dataDir, ca authority, challenge []byte, name string, failover bool) (err error) {
	unlock, err := d.lock()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if _, err := d.ra(name, a.Random); err != nil {
		return err
	}
	return d.saveAuthority(ca, challenge, failover)
}

// newAuthority checks what was said about the CA.
func newAuthority(o caAddOptions) (authority, error) {
	u, err := url.Parse(o.url)
	if err != nil || u.Host == "" {
		return authority{}, clikit.WithHint(clikit.Usage("%.200q is not the URL of a SCEP service", o.url), "write http://host/path")
	}
	ca := authority{Name: o.name, URL: o.url}
	if ca.Name == "" {
		ca.Name = u.Host
	}
	if !regexp.MustCompile(`^[A-Za-z0-9.:_\[\]-]{1,64}$`).MatchString(ca.Name) {
		return authority{}, clikit.Usage("the name %.80q is not 1 to 64 letters, digits, '.', ':', '_', '-'", ca.Name)
	}
	if o.fingerprint == "" {
		return ca, nil
	}
	if _, err := scep.ParseFingerprint(o.fingerprint); err != nil {
		return authority{}, clikit.WithCode(fmt.Errorf("--fingerprint: %w", err), clikit.ExitUsage)
	}
	return ca, nil
}

// readChallenge reads the challenge, nil if there is no file.
func (a *app) readChallenge(ctx context.Context, path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	return clikit.ReadSecret(ctx, a.Streams, clikit.Secret{
		Path: path, Flag: "--challenge-file", What: "challenge", NoInput: a.NoInput, Program: program, Quiet: a.Quiet,
	})
}

// confirmAnchor shows the trust anchor, unless its fingerprint was given, and
// asks whether it is right.
func (a *app) confirmAnchor(anchor *x509.Certificate, fingerprint string) error {
	if fingerprint != "" {
		return nil
	}
	a.warn("trust anchor %s, not authenticated yet: compare the fingerprint with the CA's operator", scep.Describe(anchor))
	ok, err := a.Confirm(a.Streams, "Is this the fingerprint of the CA?")
	if err != nil {
		return clikit.WithHint(err, "give --fingerprint "+scep.Fingerprint(anchor)+" after comparing it, or --yes")
	}
	if !ok {
		return clikit.WithHint(errors.New("the fingerprint was not confirmed; no CA was added"), "ask the CA's operator for the fingerprint and give it with --fingerprint")
	}
	return nil
}

// readCertificates reads files of certificates, in PEM or DER.
func readCertificates(paths []string) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for _, path := range paths {
		data, err := keyfile.Read(path, maxAuthority)
		if err != nil {
			return nil, clikit.WithCode(err, clikit.ExitUsage)
		}
		found, err := parseCertificates(data)
		if err != nil {
			return nil, clikit.Usage("%s: %w", path, err)
		}
		out = append(out, found...)
	}
	return out, nil
}

func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	block, rest := pem.Decode(data)
	if block == nil {
		c, err := x509.ParseCertificate(data)
		return []*x509.Certificate{c}, err
	}
	var out []*x509.Certificate
	for ; block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("a PEM block %.40q where only certificates are expected", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// explainCA adds exit codes and hints to what went wrong with a CA.
func explainCA(err error) error {
	for _, e := range []struct {
		cause error
		code  int
		hint  string
	}{
		{scep.ErrURL, clikit.ExitUsage, "write http://host/path, as the CA's operator gives it"},
		{scep.ErrFingerprint, clikit.ExitFailed, "compare the fingerprint with the CA's operator; give a root that the CA does not send with --root FILE"},
		{scep.ErrAuthority, clikit.ExitFailed, "give missing CA certificates with --root FILE, or ask the CA's operator"},
		{scep.ErrNotSCEP, clikit.ExitFailed, "check the URL with the CA's operator"},
		{enrol.ErrCAUnavailable, clikit.ExitUnavailable, "check that the CA runs and that the URL is right"},
	} {
		if errors.Is(err, e.cause) {
			return clikit.WithHint(clikit.WithCode(err, e.code), e.hint)
		}
	}
	return err
}
