package clmctl

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
)

func (a *app) caCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Choose the corporate CA, and show it",
	}
	cmd.AddCommand(a.caAddCommand(), a.caShowCommand(), a.caRemoveCommand(), a.caCheckCommand(), a.caRolloverCommand())
	return cmd
}

func (a *app) caShowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "show [NAME]",
		Short: "Show the CA in use, or another one by its name",
		Long: `show shows the CA in use. With a name it shows that CA, which may be one of those
that are asked when the one in use cannot be had; "ca check" lists them all.`,
		Example: "  clmctl ca show\n  clmctl ca show ca2.example -o json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.openExisting(cmd)
			if err != nil {
				return err
			}
			f, err := s.dir.authorities()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				ca, err := f.find(args[0])
				if err != nil {
					return err
				}
				return a.renderAuthority(ca)
			}
			if f.Rollover != nil {
				a.note("a rollover to CA %s is under way, stage %s: clmctl ca rollover status", f.Authorities[1].Name, f.Rollover.Stage)
			}
			for _, other := range f.Failover {
				a.note("CA %s is asked when this one cannot be had", other.Name)
			}
			return a.renderAuthority(f.Authorities[0])
		},
	}
}

// find returns a CA by its name.
func (f authorityJSON) find(name string) (authority, error) {
	all := f.all()
	i := slices.IndexFunc(all, func(ca authority) bool { return ca.Name == name })
	if i < 0 {
		names := make([]string, len(all))
		for i, ca := range all {
			names[i] = ca.Name
		}
		return authority{}, clikit.WithHint(clikit.Usage("there is no CA %.80q", name), "there are: "+strings.Join(names, ", "))
	}
	return all[i], nil
}

func (a *app) caRemoveCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME",
		Short: "Forget a failover CA",
		Long: `remove forgets a CA that was added with --failover, and its challenge. The CA in
use is not removed but replaced, by "ca add" or "ca rollover".`,
		Example: "  clmctl ca remove ca2.example",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.openExisting(cmd)
			if err != nil {
				return err
			}
			return s.dir.removeFailover(args[0])
		},
	}
}

// caView is a CA as it is shown.
type caView struct {
	Name         string            `json:"name"`
	URL          string            `json:"url"`
	Anchor       certificateView   `json:"anchor"`
	Certificates []certificateView `json:"certificates"`
	Capabilities []string          `json:"capabilities"`
	Challenge    bool              `json:"challenge"` // whether there is one
	AddedAt      string            `json:"added_at"`
}

// certificateView is a CA or RA certificate as it is shown.
type certificateView struct {
	Subject  string `json:"subject"`
	CA       bool   `json:"ca"`
	SHA256   string `json:"sha256"`
	NotAfter string `json:"not_after"`
}

func viewCertificate(c *x509.Certificate) certificateView {
	sum := sha256.Sum256(c.Raw)
	return certificateView{
		Subject: c.Subject.String(), CA: c.IsCA, SHA256: hex.EncodeToString(sum[:]), NotAfter: stamp(c.NotAfter),
	}
}

func (a *app) renderAuthority(ca authority) error {
	anchor, err := ca.anchor()
	if err != nil {
		return err
	}
	v := caView{
		Name: ca.Name, URL: ca.URL, Anchor: viewCertificate(anchor), Certificates: []certificateView{},
		Capabilities: ca.Capabilities, Challenge: ca.ChallengeFile != "", AddedAt: stamp(ca.AddedAt),
	}
	fields := []clikit.Field{
		{Name: "name", Value: v.Name},
		{Name: "url", Value: v.URL},
		{Name: "anchor", Value: v.Anchor.Subject},
		{Name: "anchor_fingerprint", Value: "sha256:" + v.Anchor.SHA256},
		{Name: "anchor_not_after", Value: v.Anchor.NotAfter},
	}
	for i, der := range ca.Certificates {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return err
		}
		shown := viewCertificate(c)
		v.Certificates = append(v.Certificates, shown)
		fields = append(fields, clikit.Field{Name: "certificate_" + strconv.Itoa(i+1), Value: shown.Subject + " sha256:" + shown.SHA256})
	}
	fields = append(fields,
		clikit.Field{Name: "challenge", Value: strconv.FormatBool(v.Challenge)},
		clikit.Field{Name: "added_at", Value: v.AddedAt})
	return clikit.RenderRecord(a.Out, a.Output, v, fields...)
}
