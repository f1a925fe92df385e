package pkgoffline

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

// reviewShown is how many keys are shown without --verbose.
const reviewShown = 20

// reviewView is a batch as its documents say it is.
type reviewView struct {
	Batch        pkgen.Hash     `json:"batch_sha256"`
	ParamsID     string         `json:"params_id"`
	Epoch        uint32         `json:"epoch"`
	Sharing      pkgen.Hash     `json:"sharing_sha256"`
	Needed       int            `json:"needed"`
	Time         time.Time      `json:"time"`
	Connected    bool           `json:"lab"` // it was made on a machine that is not air-gapped
	LedgerBefore string         `json:"ledger_before"`
	LedgerAfter  string         `json:"ledger_after"`
	Keys         []keyView      `json:"keys"`
	Anchors      []anchorView   `json:"anchors"`
	ManifestRows int            `json:"manifest_rows"`
	Transcript   []string       `json:"transcript"`
	Accept       []acceptedView `json:"accept"` // what needs a yes of its own
}

type keyView struct {
	Identity     ibc.Identity      `json:"identity"`
	Recipient    bundle.Hash       `json:"recipient_sha256"`
	Address      string            `json:"address"`
	Labels       map[string]string `json:"labels"`
	Names        []fleet.Name      `json:"names"`
	CLMs         []bundle.Peer     `json:"clms"`
	CLMAddresses []string          `json:"clm_addresses"`
	Anchors      []inspectedAnchor `json:"anchors"`
	LedgerIndex  uint64            `json:"ledger_index"`
	Before       string            `json:"before"` // the name's latest identity; "" if it is new
}

type anchorView struct {
	Serial  uint64            `json:"serial"`
	Pattern bundle.Pattern    `json:"pattern"`
	Anchors []inspectedAnchor `json:"anchors"`
}

type acceptedView struct {
	Word string `json:"accept"`
	Text string `json:"text"`
}

func viewReview(r *pkgen.Review, sharing *custody.Sharing) reviewView {
	b, id := r.Batch, r.Batch.Params.ID()
	v := reviewView{
		Batch: b.ID(), ParamsID: hex.EncodeToString(id[:]), Epoch: b.Params.Epoch(), Sharing: b.Sharing, Needed: sharing.Threshold(),
		Time: b.Time, Connected: r.Connected(), LedgerBefore: formatHead(r.Before), LedgerAfter: formatHead(r.After),
		Keys: []keyView{}, Anchors: []anchorView{}, Transcript: r.Transcript, Accept: []acceptedView{},
	}
	for _, k := range r.Keys {
		before := ""
		if k.Last != nil {
			before = k.Last.Identity.String()
		}
		v.Keys = append(v.Keys, keyView{
			Identity: k.Identity, Recipient: k.Bundle.Recipient, Address: k.Bundle.Address, Labels: k.Labels, Names: k.Bundle.Names,
			CLMs: k.Bundle.Peers, CLMAddresses: k.Bundle.CLMAddresses, Anchors: inspectAnchors(k.Bundle.Anchors), LedgerIndex: k.Index, Before: before,
		})
	}
	for _, s := range r.Anchors {
		v.Anchors = append(v.Anchors, anchorView{s.Serial, s.Pattern, inspectAnchors(s.Anchors)})
	}
	if r.Manifest != nil {
		v.ManifestRows = len(r.Manifest.Rows)
	}
	for _, c := range r.Consents() {
		v.Accept = append(v.Accept, acceptedView{c.Word(), c.Text})
	}
	return v
}

// renderReview shows a batch: in words, or all of it as data.
func (a *app) renderReview(r *pkgen.Review, sharing *custody.Sharing) error {
	v := viewReview(r, sharing)
	if a.Output == clikit.FormatTable || a.Output == clikit.FormatWide {
		_, err := fmt.Fprint(a.Out, v.words(a.Verbose || a.Output == clikit.FormatWide))
		return err
	}
	t := clikit.Table{Columns: clikit.Columns("identity", "recipient_sha256", "address", "labels", "names", "clms", "ledger_index", "before")}
	for _, k := range v.Keys {
		t.Rows = append(t.Rows, []string{
			k.Identity.String(), k.Recipient.String(), k.Address, fleet.FormatLabels(k.Labels), formatNames(k.Names),
			formatPeers(k.CLMs), strconv.FormatUint(k.LedgerIndex, 10), k.Before,
		})
	}
	return clikit.Render(a.Out, a.Output, v, t)
}

// words says what a batch asks for, all of it or of long lists the beginning.
func (v reviewView) words(all bool) string {
	var out strings.Builder
	line := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(&out, "%-11s %s\n", name, clikit.OneLine(fmt.Sprintf(format, args...)))
	}
	line("batch", "%s", v.Batch)
	line("pkg", "params_id %s, epoch %d", v.ParamsID, v.Epoch)
	line("shares", "%d are needed, of the sharing %s", v.Needed, v.Sharing)
	line("made", "%s", v.Time.Format(time.RFC3339))
	if v.Connected {
		line("", "on a machine that is not air-gapped")
	}
	line("ledger", "from %s", v.LedgerBefore)
	line("", "to %s", v.LedgerAfter)
	clms := 0
	for _, k := range v.Keys {
		if k.Identity.Role == ibc.RoleCLM {
			clms++
		}
	}
	line("keys", "%d: %d of devices, %d of CLMs", len(v.Keys), len(v.Keys)-clms, clms)
	for i, k := range v.Keys {
		if !all && i == reviewShown {
			line("", "… and %d more: --verbose shows them", len(v.Keys)-i)
			break
		}
		for _, text := range k.words() {
			line("", "%s", text)
		}
	}
	for _, s := range v.Anchors {
		line("anchors", "statement %d: the devices %q trust from now on, and no others:", s.Serial, s.Pattern)
		for _, anchor := range s.Anchors {
			line("", "%s sha256:%s", anchor.Subject, anchor.SHA256)
		}
	}
	if v.ManifestRows > 0 {
		line("manifest", "%d identities are on the medium then, each as the ledger records it", v.ManifestRows)
	}
	for i, text := range v.Transcript {
		name := ""
		if i == 0 {
			name = "transcript"
		}
		line(name, "%s", text)
	}
	for _, c := range v.Accept {
		line("TO AGREE TO", "%s (%s)", c.Text, c.Word)
	}
	return out.String()
}

// words says what one key is.
func (k keyView) words() []string {
	first := k.Identity.String()
	if k.Before != "" {
		first += ", before " + k.Before
	}
	out := []string{first, "  sealed for the recipient with SHA-256 " + k.Recipient.String()}
	for _, x := range []struct{ name, value string }{
		{"address", k.Address}, {"labels", fleet.FormatLabels(k.Labels)}, {"certificate names", formatNames(k.Names)},
		{"listens to", formatPeers(k.CLMs)}, {"at", strings.Join(k.CLMAddresses, ", ")},
	} {
		if x.value != "" {
			out = append(out, "  "+x.name+" "+x.value)
		}
	}
	for _, anchor := range k.Anchors {
		out = append(out, "  trusts "+anchor.Subject+" sha256:"+anchor.SHA256.String())
	}
	return out
}

func formatPeers(peers []bundle.Peer) string {
	var out []string
	for _, p := range peers {
		out = append(out, fmt.Sprintf("%s from e%d.g%d on", p.Name, p.Epoch, p.Generation))
	}
	return strings.Join(out, ", ")
}
