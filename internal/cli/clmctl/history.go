package clmctl

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/store"
)

type history = store.History

type historyOptions struct {
	events int
}

func (a *app) deviceHistoryCommand() *cobra.Command {
	var o historyOptions
	cmd := &cobra.Command{
		Use:   "history NAME",
		Short: "Show every certificate, statement, attempt and address of a device",
		Long: `history shows what the inventory knows about a device since it was commissioned:
its addresses and assets, its enrolments with the duration of each of the paper's five
steps, its certificates with the device's signed statements, and the events. In
JSON it is complete, with certificates and statements for anyone to check.`,
		Example: "  clmctl device history plc-0001.bilbao\n  clmctl device history plc-0001.bilbao -o json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.events < 0 {
				return clikit.Usage("--events: %d is less than 0", o.events)
			}
			return a.withHistory(cmd, args[0], o.events, a.renderHistory)
		},
	}
	cmd.Flags().IntVar(&o.events, "events", 0, "show so many of the latest events (0: all)")
	return cmd
}

// withHistory reads what is known about a device.
func (a *app) withHistory(cmd *cobra.Command, name string, events int, show func(history) error) (err error) {
	if _, err := (selection{names: []string{name}}).filter(); err != nil {
		return err
	}
	s, err := a.openExisting(cmd)
	if err != nil {
		return err
	}
	devices, err := s.dir.inventory(cmd.Context(), true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, devices.Close()) }()
	h, err := devices.History(cmd.Context(), name, events)
	if err != nil {
		return explainUnknown(err)
	}
	return show(h)
}

// historyView is a device's history as scripts see it.
type historyView struct {
	Device         deviceView        `json:"device"`
	CommissionedAt *string           `json:"commissioned_at"`
	LedgerIndex    uint64            `json:"ledger_index"`
	Addresses      []addressView     `json:"addresses"`
	Assets         []assetView       `json:"assets"`
	Enrolments     []enrolmentView   `json:"enrolments"`
	Certificates   []certificateHist `json:"certificates"`
	Deliveries     []deliveryView    `json:"deliveries"`
	Events         []eventView       `json:"events"`
}

type addressView struct {
	Address *string `json:"address"`
	Source  string  `json:"source"`
	Manual  bool    `json:"manual"`
	Since   string  `json:"since"`
}

type assetView struct {
	Asset  *string `json:"asset"` // null: none
	Source string  `json:"source"`
	Since  string  `json:"since"`
}

type enrolmentView struct {
	ID            string      `json:"id"`
	Identity      string      `json:"identity"`
	State         enrol.State `json:"state"`
	CA            string      `json:"ca"`
	TransactionID *string     `json:"transaction_id"`
	CreatedAt     *string     `json:"created_at"`
	UpdatedAt     *string     `json:"updated_at"`
	SubmittedAt   *string     `json:"submitted_at"`
	IssuedAt      *string     `json:"issued_at"`
	Tries         int         `json:"tries"` // transient failures since the last progress
	NextTry       *string     `json:"next_try"`
	FailedBy      *string     `json:"failed_by"`
	LastError     *string     `json:"last_error"`
	Steps         stepsView   `json:"steps_ms"`
}

// stepsView are the paper's five steps in milliseconds.
type stepsView struct {
	CSRRequest    float64 `json:"csr_request"`
	KeyAndCSR     float64 `json:"key_and_csr"`
	Enrolment     float64 `json:"enrolment"`
	VerifyRequest float64 `json:"verify_request"`
	Verification  float64 `json:"verification"`
	Total         float64 `json:"total"`
}

type certificateHist struct {
	certificateFacts
	Enrolment string       `json:"enrolment"`
	Active    bool         `json:"active"`
	Tenures   []tenureView `json:"tenures"`
	DER       string       `json:"der"`   // base64
	Chain     []string     `json:"chain"` // base64
	Receipt   *receiptView `json:"receipt"`
}

type tenureView struct {
	From  *string `json:"from"`
	Until *string `json:"until"` // null: still is
}

// receiptView is the device's proof: with the enrolment's ID, the certificate
// and params.json it can be checked by anyone.
type receiptView struct {
	Identity   string `json:"identity"`
	ParamsID   string `json:"params_id"`
	Nonce      string `json:"nonce"`
	Possession string `json:"possession"`
	Statement  string `json:"statement"`
	SPKI       string `json:"spki_sha256"`
}

type eventView struct {
	At        string          `json:"at"`
	Enrolment *string         `json:"enrolment"`
	State     *string         `json:"state"`
	Kind      enrol.EventKind `json:"kind"`
	Class     *string         `json:"class"`
	By        *string         `json:"by"`
	Message   string          `json:"message"`
	TookMS    float64         `json:"took_ms"`
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func viewSteps(s enrol.Steps) stepsView {
	return stepsView{
		milliseconds(s.CSRRequest), milliseconds(s.KeyAndCSR), milliseconds(s.Enrolment),
		milliseconds(s.VerifyRequest), milliseconds(s.Verification), milliseconds(s.Total()),
	}
}

func viewHistory(h history, now time.Time) historyView {
	v := historyView{
		Device: viewDevice(h.Device, now), CommissionedAt: optionalTime(h.CommissionedAt), LedgerIndex: h.LedgerIndex,
		Addresses: []addressView{}, Assets: []assetView{}, Enrolments: []enrolmentView{}, Certificates: []certificateHist{}, Events: []eventView{}, Deliveries: viewDeliveries(h.Deliveries),
	}
	for _, x := range h.Addresses {
		v.Addresses = append(v.Addresses, addressView{optional(x.Address), x.Source, x.Manual, stamp(x.Since)})
	}
	for _, x := range h.Assets {
		v.Assets = append(v.Assets, assetView{optional(x.Asset), x.Source, stamp(x.Since)})
	}
	for _, e := range h.Enrolments {
		v.Enrolments = append(v.Enrolments, enrolmentView{
			ID: e.ID.String(), Identity: e.Identity.String(), State: e.State, CA: e.CA, TransactionID: optional(e.TransactionID),
			CreatedAt: optionalTime(e.CreatedAt), UpdatedAt: optionalTime(e.UpdatedAt), SubmittedAt: optionalTime(e.SubmittedAt),
			IssuedAt: optionalTime(e.IssuedAt), Tries: e.Tries, NextTry: optionalTime(e.NextTry),
			FailedBy: optional(string(e.FailedBy)), LastError: optional(e.LastError), Steps: viewSteps(e.Steps),
		})
	}
	for _, c := range h.Certificates {
		v.Certificates = append(v.Certificates, viewCertificateHistory(c))
	}
	for _, e := range h.Events {
		v.Events = append(v.Events, viewEvent(e))
	}
	return v
}

func viewCertificateHistory(c store.Certificate) certificateHist {
	v := certificateHist{
		certificateFacts: viewFacts(c.Certificate), Enrolment: c.Enrolment.String(), Active: c.Active,
		Tenures: []tenureView{}, DER: base64.StdEncoding.EncodeToString(c.DER), Chain: []string{},
	}
	for _, x := range c.Tenures {
		v.Tenures = append(v.Tenures, tenureView{optionalTime(x.From), optionalTime(x.Until)})
	}
	for _, der := range c.Chain {
		v.Chain = append(v.Chain, base64.StdEncoding.EncodeToString(der))
	}
	if r := c.Receipt; len(r.Statement) > 0 {
		v.Receipt = &receiptView{
			Identity: r.Identity.String(), ParamsID: hex.EncodeToString(r.ParamsID[:]), Nonce: hex.EncodeToString(r.Nonce[:]),
			Possession: hex.EncodeToString(r.Possession), Statement: hex.EncodeToString(r.Statement), SPKI: hex.EncodeToString(r.SPKI[:]),
		}
	}
	return v
}

func viewEvent(e enrol.Event) eventView {
	v := eventView{
		At: stamp(e.At), State: optional(string(e.State)), Kind: e.Kind, Class: optional(string(e.Class)),
		By: optional(string(e.By)), Message: e.Message, TookMS: milliseconds(e.Took),
	}
	if e.Enrolment != (enrol.ID{}) {
		v.Enrolment = optional(e.Enrolment.String())
	}
	return v
}

// renderHistory writes all of it as JSON or YAML; people get tables, and CSV
// has the events.
func (a *app) renderHistory(h history) error {
	v := viewHistory(h, a.Now())
	events := clikit.Table{Columns: clikit.Columns("at", "state", "kind", "took_ms", "message")}
	for _, e := range v.Events {
		events.Rows = append(events.Rows, []string{e.At, deref(e.State), string(e.Kind), fmt.Sprintf("%.1f", e.TookMS), e.Message})
	}
	if a.Output != clikit.FormatTable && a.Output != clikit.FormatWide {
		return clikit.Render(a.Out, a.Output, v, events)
	}
	for _, section := range []struct {
		title string
		table clikit.Table
	}{
		{"Addresses", addressTable(v)}, {"Assets", assetTable(v)}, {"Enrolments (steps in ms)", enrolmentTable(v)},
		{"Certificates", certificateTable(v)}, {"Events", events},
	} {
		if _, err := fmt.Fprintf(a.Out, "%s\n", section.title); err != nil {
			return err
		}
		if err := clikit.Render(a.Out, a.Output, nil, section.table); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(a.Out); err != nil {
			return err
		}
	}
	return nil
}

func addressTable(v historyView) clikit.Table {
	t := clikit.Table{Columns: clikit.Columns("since", "address", "source")}
	for _, x := range v.Addresses {
		t.Rows = append(t.Rows, []string{x.Since, deref(x.Address), x.Source})
	}
	return t
}

func assetTable(v historyView) clikit.Table {
	t := clikit.Table{Columns: clikit.Columns("since", "asset", "source")}
	for _, x := range v.Assets {
		t.Rows = append(t.Rows, []string{x.Since, deref(x.Asset), x.Source})
	}
	return t
}

func enrolmentTable(v historyView) clikit.Table {
	t := clikit.Table{Columns: append(clikit.Columns("begun", "state", "csr_request", "key_and_csr", "enrolment", "verify_request", "verification", "total"),
		clikit.Column{Name: "id", Wide: true}, clikit.Column{Name: "ca", Wide: true}, clikit.Column{Name: "last_error", Wide: true})}
	for _, e := range v.Enrolments {
		row := []string{deref(e.CreatedAt), string(e.State)}
		for _, ms := range []float64{e.Steps.CSRRequest, e.Steps.KeyAndCSR, e.Steps.Enrolment, e.Steps.VerifyRequest, e.Steps.Verification, e.Steps.Total} {
			row = append(row, fmt.Sprintf("%.1f", ms))
		}
		t.Rows = append(t.Rows, append(row, e.ID, e.CA, deref(e.LastError)))
	}
	return t
}

func certificateTable(v historyView) clikit.Table {
	t := clikit.Table{Columns: append(clikit.Columns("not_before", "not_after", "active", "statement", "serial"),
		clikit.Column{Name: "subject", Wide: true}, clikit.Column{Name: "sha256", Wide: true})}
	for _, c := range v.Certificates {
		active, statement := "", ""
		if c.Active {
			active = "yes"
		}
		if c.Receipt != nil {
			statement = "yes"
		}
		t.Rows = append(t.Rows, []string{c.NotBefore, c.NotAfter, active, statement, c.Serial, c.Subject, c.SHA256})
	}
	return t
}
