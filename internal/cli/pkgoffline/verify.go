package pkgoffline

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/hashlog"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

type verifyOptions struct {
	dir, params, paramsID string
	heads                 []string
}

func (a *app) verifyCommand() *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify [--dir DIR] [PATH...]",
		Short: "Check a PKG's directory, a medium, a ledger, a transcript, a manifest or a statement",
		Long: `verify checks everything that can be checked without a secret and names the
first line or file that does not hold. A PATH is the directory of a PKG, a
medium, a ledger, a transcript, a manifest, a statement, or a receipt.

Of a PKG's directory the transcripts are checked too, one against the other and
against the ledger, and every file in it against the transcript of the run that
wrote it. So a file that was changed, cut short or taken away is noticed, except
at the very end: what proves that nothing is missing there is a head that was
written down elsewhere (--head), or the manifest of a later medium.

With --dir, the PKG's directory is checked first, and every PATH is held to its
parameters and ledger. Otherwise they are taken from --params FILE, from
params.json beside a ledger, or from the manifest or the statement itself: then compare the
params_id that is printed, or give --params-id.`,
		Example: "  pkg-offline verify --dir pkg\n  pkg-offline verify --params pkg/params.json usb",
		RunE:    func(_ *cobra.Command, args []string) error { return a.runVerify(o, args) },
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", "", "directory of the PKG")
	f.StringVar(&o.params, "params", "", "parameters of the PKG, a params.json")
	f.StringVar(&o.paramsID, "params-id", "", "params_id that everything must be of, in hex")
	f.StringArrayVar(&o.heads, "head", nil, "a head that was written down (count:sha256), of the ledger or a transcript, which must be there (repeat for more)")
	cmd.MarkFlagsMutuallyExclusive("dir", "params")
	return cmd
}

// verified is a line of the result of verify.
type verified struct {
	Kind     string `json:"kind"` // pkg, transcripts, medium, ledger, manifest, transcript, anchor, epoch, receipts or recovery-shares
	Path     string `json:"path"`
	ParamsID string `json:"params_id"`
	Entries  int    `json:"entries"` // of the ledger, rows of the manifest, anchors of the statement, shares, lines of the transcript, or transcripts
	Ledger   string `json:"ledger"`  // the head, of a transcript its own; "" of a statement
}

// verifier holds what the paths are checked against.
type verifier struct {
	params *ibc.Params   // nil: what the path says itself
	ledger *pkgen.Ledger // nil: none
	done   []verified
	notes  []string // what a person is told if all of it holds

	// Of everything that was checked.
	ledgers []*pkgen.Ledger
	heads   []hashlog.Head // of transcripts
	perRun  map[hashlog.Hash]int
}

func (a *app) runVerify(o verifyOptions, paths []string) error {
	if o.dir == "" && len(paths) == 0 {
		return clikit.WithHint(clikit.Usage("nothing to verify"), "give --dir DIR or the path of a medium, a ledger, a manifest, an anchor statement or a lifeboat")
	}
	var v verifier
	heads := make([]bundle.LedgerHead, len(o.heads))
	for i, text := range o.heads {
		var err error
		if heads[i], err = pkgen.ParseHead(text); err != nil {
			return clikit.Usage("--head: %w", err)
		}
	}
	err := v.run(o, paths)
	for _, head := range heads {
		if err == nil {
			err = v.headKnown(head)
		}
	}
	if err == nil {
		err = v.heldTo(o.paramsID)
	}
	if err != nil {
		return explain(err)
	}
	for _, text := range v.notes {
		a.note("%s", text)
	}
	t := clikit.Table{Columns: clikit.Columns("kind", "path", "params_id", "entries", "ledger")}
	for _, d := range v.done {
		t.Rows = append(t.Rows, []string{d.Kind, d.Path, d.ParamsID, fmt.Sprint(d.Entries), d.Ledger})
	}
	return clikit.Render(a.Out, a.Output, v.done, t)
}

func (v *verifier) run(o verifyOptions, paths []string) error {
	if o.params != "" {
		params, err := pkgen.ReadParams(o.params)
		if err != nil {
			return err
		}
		v.params = params
	}
	if o.dir != "" {
		if err := v.pkg(o.dir); err != nil {
			return err
		}
	}
	for _, path := range paths {
		if err := v.path(path); err != nil {
			return err
		}
	}
	return nil
}

// heldTo checks that everything was of the PKG with a params_id; with a ledger,
// of whichever epoch.
func (v *verifier) heldTo(paramsID string) error {
	if v.ledger != nil && slices.ContainsFunc(v.ledger.Epochs(), func(p *ibc.Params) bool { return bundle.Hash(p.ID()).String() == paramsID }) {
		return nil
	}
	for _, d := range v.done {
		if paramsID != "" && d.ParamsID != paramsID {
			return fmt.Errorf("%s is %w: its params_id is %s", d.Path, bundle.ErrParams, d.ParamsID)
		}
	}
	return nil
}

// target is a path that is to be checked.
type target struct {
	path string
	dir  bool
}

// has reports whether a directory has a file.
func (t target) has(name string) bool {
	_, err := os.Lstat(filepath.Join(t.path, name))
	return t.dir && err == nil
}

// kind is one of the things that verify knows.
type kind struct {
	is    func(t target) bool
	check func(v *verifier, path string) error
}

// kinds are told apart in this order. A new one gets a file of its own,
// verify<kind>.go, and a line here.
func kinds() []kind {
	return []kind{
		{isPKG, (*verifier).pkg},
		{isMedium, (*verifier).wholeMedium},
		{isStatements, (*verifier).statements},
		{isReceipts, (*verifier).receipts},
		{isTranscript, (*verifier).transcript},
		{isLedger, (*verifier).ledgerFile},
		{isStatement, (*verifier).statement},
		{func(t target) bool { return isSuccession(t.path) }, (*verifier).succession},
		{func(t target) bool { return !t.dir && isLifeboat(t.path) }, (*verifier).lifeboat},
		{isRecoverySharing, (*verifier).recoverySharing},
		{isFile, (*verifier).manifest},
	}
}

func (v *verifier) path(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	t := target{path, info.IsDir()}
	for _, k := range kinds() {
		if k.is(t) {
			return k.check(v, path)
		}
	}
	return fmt.Errorf("%s holds neither a PKG nor a manifest", path)
}

func isFile(t target) bool { return !t.dir }

func (v *verifier) add(kind, path string, params *ibc.Params, entries int, head bundle.LedgerHead) {
	v.done = append(v.done, verified{kind, path, formatID(params), entries, formatHead(head)})
}

func formatID(params *ibc.Params) string {
	id := params.ID()
	return hex.EncodeToString(id[:])
}
