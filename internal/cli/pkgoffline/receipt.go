package pkgoffline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

// errReceipts is that receipts and ledger do not agree.
var errReceipts = errors.New("receipts and ledger do not agree")

type receiptOptions struct {
	dir    string
	states []string
	strict bool
}

func (a *app) receiptCommand() *cobra.Command {
	var o receiptOptions
	cmd := &cobra.Command{
		Use:   "receipt --dir DIR [MEDIUM...]",
		Short: "Take receipts back from media, and tell which bundles are outstanding",
		Long: `receipt reads the receipts that devagent provision, clmctl init and clmctl
commission left on media, checks each by the signature of its identity, keeps it in
the PKG's directory, and holds the ledger to all that came back so far. A MEDIUM
is a stick, its folder receipts, or the file of one receipt; nothing is written to
it. Sticks may come one by one, in any order, and again. It needs no secret.

Of each issued identity it says the worst that is true:

  duplicated    its bundle was installed more than once: a copied stick or card
  outstanding   no receipt says that it was installed
  provisioned   it was installed, and no CLM has taken it yet
  commissioned  it was installed, and a CLM has taken it
  superseded    a later generation or epoch was issued since

Unknown are receipts of which the ledger has no issue, and those that nobody of
this PKG signed. Times are those of the signers' clocks, which may be wrong.

Exit code 1 if anything is unknown or duplicated, or does not verify; 3 with
--strict if that is not so, but something is outstanding.`,
		Example: "  pkg-offline receipt --dir pkg usb\n  pkg-offline receipt --dir pkg --state outstanding,duplicated -o csv",
		RunE: func(cmd *cobra.Command, args []string) error {
			return explain(a.runReceipt(cmd.Context(), o, args))
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "directory of the PKG")
	f.StringSliceVar(&o.states, "state", nil, "show only identities in these states")
	f.BoolVar(&o.strict, "strict", false, "exit with 3 if something is outstanding")
	_ = cmd.MarkFlagRequired("dir")
	_ = cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(receiptStates(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func receiptStates() []string {
	return []string{
		string(pkgen.StateDuplicated), string(pkgen.StateOutstanding), string(pkgen.StateProvisioned),
		string(pkgen.StateCommissioned), string(pkgen.StateSuperseded),
	}
}

func (a *app) runReceipt(ctx context.Context, o receiptOptions, media []string) (err error) {
	for _, s := range o.states {
		if !slices.Contains(receiptStates(), s) {
			return clikit.Usage("--state: %.40q is none of %s", s, strings.Join(receiptStates(), ", "))
		}
	}
	book, err := pkgen.OpenReceipts(a.config(o.dir), len(media) > 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, book.Close()) }()
	taken := &pkgen.TakenBack{}
	if len(media) > 0 {
		if taken, err = book.Take(ctx, media, a.receiptProgress()); err != nil {
			return err
		}
		a.note("%s: %d new receipts, %d known, %d refused", strings.Join(media, ", "), taken.New, taken.Known, len(taken.Refused))
	}
	r := book.Reconcile(taken.Refused)
	a.noteReconciled(r)
	if len(o.states) > 0 {
		r.Identities = slices.DeleteFunc(r.Identities, func(s pkgen.Standing) bool { return !slices.Contains(o.states, string(s.State)) })
	}
	if err := clikit.Render(a.Out, a.Output, r, standingTable(r.Identities)); err != nil {
		return err
	}
	return o.verdict(r)
}

// maxShown bounds how many lines of the same kind are written to standard error.
const maxShown = 20

func (a *app) noteReconciled(r *pkgen.Reconciled) {
	a.note("issued %d: provisioned %d, outstanding %d; commissioned %d", r.Issued, r.Provisioned, r.Outstanding, r.Commissioned)
	a.note("duplicated %d, unknown %d; superseded %d, of which %d never came back", r.Duplicated, len(r.Unknown), r.Superseded, r.SupersededOutstanding)
	shown := 0
	for _, s := range r.Identities {
		if s.State != pkgen.StateDuplicated {
			continue
		}
		if shown++; shown <= maxShown {
			a.warn("duplicated: " + s.Identity.String() + ": " + s.Note)
		}
	}
	for i, u := range r.Unknown {
		if i == maxShown {
			break
		}
		a.warn("unknown: " + describeUnknown(u))
	}
	if rest := max(0, shown-maxShown) + max(0, len(r.Unknown)-maxShown); rest > 0 {
		a.warn(fmt.Sprintf("%d more; -o json has them all", rest))
	}
}

func describeUnknown(u pkgen.Unknown) string {
	var parts []string
	if u.File != "" {
		parts = append(parts, u.File)
	}
	if u.Signer != nil {
		parts = append(parts, fmt.Sprintf("%s by %s at %s", u.Kind, u.Signer, u.Time.Format(time.RFC3339)))
	}
	return strings.Join(append(parts, u.Reason), ": ")
}

// verdict is the error that the exit code comes from.
func (o receiptOptions) verdict(r *pkgen.Reconciled) error {
	switch {
	case len(r.Unknown) > 0 || r.Duplicated > 0:
		return clikit.WithHint(fmt.Errorf("%w: %d unknown, %d duplicated", errReceipts, len(r.Unknown), r.Duplicated),
			"docs/custody.md, \"The stick comes back\", says what each means and what to do")
	case o.strict && r.Outstanding > 0:
		return clikit.WithHint(clikit.WithCode(fmt.Errorf("outstanding: %d of the bundles", r.Outstanding), clikit.ExitSomeFailed),
			"bring back the media that they went out with, or the receipts of --receipt")
	}
	return nil
}

func standingTable(list []pkgen.Standing) clikit.Table {
	t := clikit.Table{Columns: []clikit.Column{
		{Name: "identity"}, {Name: "state"}, {Name: "issued_at"}, {Name: "provisioned_at"}, {Name: "commissioned_at"},
		{Name: "ledger_index", Wide: true}, {Name: "receipts", Wide: true}, {Name: "commissioned_by", Wide: true}, {Name: "note"},
	}}
	for _, s := range list {
		t.Rows = append(t.Rows, []string{
			s.Identity.String(), string(s.State), s.Issued.Format(time.RFC3339), stamp(s.Provisioned), stamp(s.Commissioned),
			strconv.FormatUint(s.LedgerIndex, 10), strconv.Itoa(s.Receipts), formatIdentities(s.By), s.Note,
		})
	}
	return t
}

// stamp is a time that may be absent.
func stamp(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.Format(time.RFC3339)
}

func formatIdentities(list []ibc.Identity) string {
	out := make([]string, len(list))
	for i, id := range list {
		out[i] = id.String()
	}
	return strings.Join(out, ";")
}

// receiptProgress shows how far a long run is, on a terminal.
func (a *app) receiptProgress() func(done, total int) {
	if a.Quiet || !a.Styled(a.Err) {
		return nil
	}
	return func(done, total int) {
		end := "\r"
		if done == total {
			end = "\n"
		}
		_, _ = fmt.Fprintf(a.Err, "%d of %d receipts checked%s", done, total, end)
	}
}
