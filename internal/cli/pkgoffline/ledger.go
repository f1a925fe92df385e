package pkgoffline

import (
	"iter"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

func (a *app) ledgerCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "ledger --dir DIR",
		Short: "Print who got which key when",
		Long: `ledger checks the ledger of a PKG (its chain and the signed head) and prints its
entries. It needs no secret.`,
		Example: "  pkg-offline ledger --dir pkg\n  pkg-offline ledger --dir pkg -o json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			ledger, err := pkgen.ReadPublic(dir)
			if err != nil {
				return explain(err)
			}
			if err := ledger.Log.Finished(); err != nil {
				a.warn("the end of the ledger: " + err.Error())
			}
			return clikit.Render(a.Out, a.Output, ledger.Entries, ledgerTable(ledger.Entries))
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "directory of the PKG")
	_ = cmd.MarkFlagRequired("dir")
	return cmd
}

func ledgerTable(entries []pkgen.Entry) clikit.Table {
	t := clikit.Table{Columns: []clikit.Column{
		{Name: "index"}, {Name: "time"}, {Name: "type"}, {Name: "identity"}, {Name: "address"}, {Name: "lab"}, {Name: "serial"}, {Name: "pattern"}, {Name: "about"},
		{Name: "labels", Wide: true}, {Name: "names", Wide: true},
		{Name: "recipient_sha256", Wide: true}, {Name: "payload_sha256", Wide: true},
	}}
	for _, e := range entries {
		t.Rows = append(t.Rows, []string{
			strconv.FormatUint(e.Index, 10), e.Time.Format(time.RFC3339), e.Type, text(e.Identity), e.Address, mark(e.Lab), serial(e), string(e.Pattern), about(e),
			fleet.FormatLabels(e.Labels), formatNames(e.Names), text(e.Recipient), text(e.Payload),
		})
	}
	return t
}

// text is the text of what may be absent.
func text[T interface {
	*ibc.Identity | *pkgen.Hash
	String() string
}](v T) string {
	if v == nil {
		return ""
	}
	return v.String()
}

// serial is the number of a statement: that of the epoch that it leads to, if it
// is one; "" of what is none.
func serial(e pkgen.Entry) string {
	n := e.Serial
	if e.Statement != "" {
		n = uint64(e.Params.Epoch())
	}
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(n, 10)
}

// about says what an entry is about that no other column says.
func about(e pkgen.Entry) string {
	if e.Identity != nil || e.Pattern != "" {
		return ""
	}
	return e.What()
}

func mark(set bool) string {
	if set {
		return "lab"
	}
	return ""
}

func formatNames(names []fleet.Name) string {
	var out string
	for i, n := range names {
		if i > 0 {
			out += ";"
		}
		out += n.String()
	}
	return out
}

// rowColumns are those of rows of a manifest.
func rowColumns() []clikit.Column {
	return []clikit.Column{
		{Name: "role"}, {Name: "name"}, {Name: "epoch"}, {Name: "generation"}, {Name: "address"}, {Name: "file"}, {Name: "ledger_index"},
		{Name: "labels", Wide: true}, {Name: "names", Wide: true}, {Name: "public_key", Wide: true}, {Name: "sha256", Wide: true},
	}
}

// rowElements shows rows in a format, one after the other.
func rowElements(f clikit.Format, rows []bundle.Row) iter.Seq2[clikit.Element, error] {
	return func(yield func(clikit.Element, error) bool) {
		for _, r := range rows {
			e := clikit.Element{Value: r}
			if !f.Structured() {
				e = clikit.Element{Row: []string{
					string(r.Role), r.Name, strconv.FormatUint(uint64(r.Epoch), 10), strconv.FormatUint(uint64(r.Generation), 10),
					r.Address, r.File, strconv.FormatUint(r.LedgerIndex, 10),
					fleet.FormatLabels(r.Labels), formatNames(r.Names), r.PublicKey, r.SHA256.String(),
				}}
			}
			if !yield(e, nil) {
				return
			}
		}
	}
}
