package pkgoffline

import (
	"encoding/hex"
	"errors"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

type anchorOptions struct {
	dir, out, pattern string
	keys              keys
	caFiles           []string
	batch             string // "": it is stated at once
}

func (a *app) anchorCommand() *cobra.Command {
	var o anchorOptions
	cmd := &cobra.Command{
		Use:   "anchor --dir DIR --out MEDIUM --pattern PATTERN --ca FILE...",
		Short: "State which CAs devices shall trust, from now on and no others",
		Long: `anchor signs a statement with the whole set of trust anchors of the devices whose
names fit a pattern, records it in the ledger under the next serial number, and
writes it to the medium. A device accepts it through its CLM (clmctl ca
rollover) if its serial number is above that of the last statement it accepted;
the set then replaces whatever the device trusted before.

The pattern is a device name, or a text with one '*', which stands for any
characters: 'plc-*', '*.bilbao', '*'.

What the latest statement says already is written again under the same serial
number, so an interrupted run is completed by running it again.

With --batch nothing is stated yet: holders of shares contribute to it first, as
with issue --batch.`,
		Example: `  pkg-offline anchor --dir pkg --passphrase-file pass --out usb --pattern 'plc-*' --ca old.pem --ca new.pem`,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return explainRequest(a.runAnchor(cmd, o)) },
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "directory of the PKG")
	o.keys.register(f)
	f.StringVar(&o.out, "out", "", "the medium: a directory, made if need be")
	f.StringVar(&o.pattern, "pattern", "", "names of the devices that it is for")
	f.StringArrayVar(&o.caFiles, "ca", nil, "CA certificate to trust, in PEM or DER (repeat for more)")
	f.StringVar(&o.batch, batchFlag, "", batchUsage)
	a.participantFlag(f)
	for _, required := range []string{"dir", "out", "pattern", "ca"} {
		_ = cmd.MarkFlagRequired(required)
	}
	return cmd
}

func (a *app) runAnchor(cmd *cobra.Command, o anchorOptions) error {
	anchors, err := readAnchors(o.caFiles)
	if err != nil {
		return clikit.WithCode(err, clikit.ExitUsage)
	}
	public, err := pkgen.ReadPublic(o.dir)
	if err != nil {
		return err
	}
	r := a.newRun(cmd, o.dir)
	connected, err := r.gate(a.lab || public.Lab())
	if err != nil {
		return err
	}
	request := pkgen.AnchorRequest{Medium: o.out, Pattern: bundle.Pattern(o.pattern), Anchors: anchors, Lab: connected}
	if o.batch != "" {
		return a.propose(cmd, r, public, connected, o.batch, pkgen.Task{Anchor: &request})
	}
	opening, err := a.readKeys(cmd.Context(), o.dir, public, o.keys)
	if err != nil {
		return err
	}
	p, err := r.open(public, connected, opening)
	if err != nil {
		return err
	}
	stated, err := p.Anchor(request)
	if err := errors.Join(r.end(err, p), p.Close()); err != nil {
		return err
	}
	return a.renderStated(stated)
}

func (a *app) renderStated(stated *pkgen.Stated) error {
	a.note("statement %d for %s is in %s; the ledger is at %s", stated.Set.Serial, stated.Set.Pattern, stated.File, formatHead(stated.Ledger))
	view := viewStatement(stated.File, &stated.Set)
	view.LedgerIndex = stated.Index
	return a.render(view, view.fields()...)
}

// statementView is an anchor statement as it is shown.
type statementView struct {
	Kind        string            `json:"kind"`
	File        string            `json:"file"`
	ParamsID    string            `json:"params_id"`
	Epoch       uint32            `json:"epoch"`
	Serial      uint64            `json:"serial"`
	Pattern     bundle.Pattern    `json:"pattern"`
	Anchors     []inspectedAnchor `json:"anchors"`
	LedgerIndex uint64            `json:"ledger_index,omitempty"` // when it was made
}

func viewStatement(file string, s *bundle.AnchorSet) statementView {
	return statementView{
		Kind: "anchor", File: file, ParamsID: hex.EncodeToString(s.ParamsID[:]), Epoch: s.Epoch,
		Serial: s.Serial, Pattern: s.Pattern, Anchors: inspectAnchors(s.Anchors),
	}
}

func (v statementView) fields() []clikit.Field {
	fields := []clikit.Field{
		{Name: "file", Value: v.File},
		{Name: "params_id", Value: v.ParamsID},
		{Name: "epoch", Value: strconv.FormatUint(uint64(v.Epoch), 10)},
		{Name: "serial", Value: strconv.FormatUint(v.Serial, 10)},
		{Name: "pattern", Value: string(v.Pattern)},
	}
	for _, anchor := range v.Anchors {
		fields = append(fields, clikit.Field{Name: "anchor", Value: anchor.Subject + " sha256:" + anchor.SHA256.String()})
	}
	return fields
}
