package devagent

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

func (a *app) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the device's identity and certificates",
		Long: `status reads the data directory, whether an agent runs on it or not. It needs
no network.`,
		Example: "  devagent status -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.openExisting(cmd)
			if err != nil {
				return err
			}
			return explain(a.status(c))
		},
	}
	cmd.Flags().AddFlagSet(new(config).keys())
	return cmd
}

// status is the result of status; what is absent is null.
type status struct {
	Identity     *ibc.Identity    `json:"identity"`
	ParamsID     *bundle.Hash     `json:"params_id"`
	Sealed       bool             `json:"sealed"` // what the device was provisioned with
	Version      string           `json:"version"`
	Active       *activePair      `json:"active"`
	Staged       *certificate     `json:"staged"`
	Anchors      []bundle.Hash    `json:"anchors"`       // SHA-256 of the trust anchors
	AnchorSerial uint64           `json:"anchor_serial"` // of the last anchor statement; 0: none
	LastError    *string          `json:"last_error"`
	RolledBack   *bundle.Hash     `json:"rolled_back"` // the certificate given up since the last activation
	Clock        enrol.ClockState `json:"clock"`
}

type certificate struct {
	Serial   string      `json:"serial"`
	SHA256   bundle.Hash `json:"sha256"`
	NotAfter time.Time   `json:"not_after"`
}

type activePair struct {
	certificate
	KeyMatches bool   `json:"key_matches"`
	KeyStore   string `json:"key_store"`
}

func describe(c *x509.Certificate) certificate {
	d := enrol.Describe(c)
	return certificate{Serial: d.Serial, SHA256: sha256.Sum256(c.Raw), NotAfter: d.NotAfter}
}

func (a *app) status(c config) error {
	if err := agent.CheckReset(c.DataDir); err != nil {
		return err
	}
	r, err := agent.Inspect(c.DataDir, a.Now(), a.keyStores(c)...)
	if err != nil {
		return err
	}
	s := status{
		Identity: r.Identity, Sealed: r.Sealed, Version: clikit.Version().Version, Clock: r.Clock,
		Anchors: append([]bundle.Hash{}, r.Anchors...), AnchorSerial: r.AnchorSerial,
	}
	identity, params := "", ""
	if r.Identity != nil {
		id := bundle.Hash(r.Params.ID())
		s.ParamsID = &id
		identity, params = r.Identity.String(), id.String()
	}
	fields := []clikit.Field{{Name: "identity", Value: identity}, {Name: "params_id", Value: params}, {Name: "sealed", Value: strconv.FormatBool(r.Sealed)}, {Name: "version", Value: s.Version}}
	add := func(name, value string) { fields = append(fields, clikit.Field{Name: name, Value: value}) }
	if r.Active != nil {
		s.Active = &activePair{describe(r.Active), r.KeyFits, r.KeyStore}
		add("active", s.Active.SHA256.String())
		add("serial", s.Active.Serial)
		add("not_after", s.Active.NotAfter.Format(time.RFC3339))
		add("key_matches", strconv.FormatBool(r.KeyFits))
		add("key_store", r.KeyStore)
	} else {
		add("active", "")
	}
	staged := ""
	if r.Staged != nil {
		d := describe(r.Staged)
		s.Staged = &d
		staged = hex.EncodeToString(d.SHA256[:])
	}
	add("staged", staged)
	for _, h := range r.Anchors {
		add("anchor", h.String())
	}
	add("anchor_serial", strconv.FormatUint(r.AnchorSerial, 10))
	if r.LastError != "" {
		s.LastError = &r.LastError
	}
	add("last_error", r.LastError)
	rolledBack := ""
	if r.RolledBack != nil {
		sum := bundle.Hash(*r.RolledBack)
		s.RolledBack, rolledBack = &sum, sum.String()
	}
	add("rolled_back", rolledBack)
	add("clock", string(r.Clock))
	return clikit.RenderRecord(a.Out, a.Output, s, fields...)
}
