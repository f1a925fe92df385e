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
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

type verifyOptions struct {
	dir, params, paramsID, head string
}

func (a *app) verifyCommand() *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify [--dir DIR] [PATH...]",
		Short: "Check a PKG's directory, a medium, a ledger, a manifest or an anchor statement",
		Long: `verify checks everything that can be checked without a secret and names the
first line or file that does not hold. A PATH is the directory of a PKG, a
medium, a ledger, a manifest or an anchor statement.

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
	f.StringVar(&o.head, "head", "", "a head that the ledger must contain, as issue printed it (count:sha256)")
	cmd.MarkFlagsMutuallyExclusive("dir", "params")
	return cmd
}

// verified is a line of the result of verify.
type verified struct {
	Kind     string `json:"kind"` // pkg, medium, ledger, manifest or anchor
	Path     string `json:"path"`
	ParamsID string `json:"params_id"`
	Entries  int    `json:"entries"` // of the ledger, rows of the manifest, or anchors of the statement
	Ledger   string `json:"ledger"`  // the head; "" of a statement
}

// verifier holds what the paths are checked against.
type verifier struct {
	params *ibc.Params   // nil: what the path says itself
	ledger *pkgen.Ledger // nil: none
	head   *bundle.LedgerHead
	done   []verified
}

func (a *app) runVerify(o verifyOptions, paths []string) error {
	if o.dir == "" && len(paths) == 0 {
		return clikit.WithHint(clikit.Usage("nothing to verify"), "give --dir DIR or the path of a medium, a ledger, a manifest or an anchor statement")
	}
	var v verifier
	if o.head != "" {
		head, err := pkgen.ParseHead(o.head)
		if err != nil {
			return clikit.Usage("--head: %w", err)
		}
		v.head = &head
	}
	err := v.run(o, paths)
	if err == nil {
		err = v.heldTo(o.paramsID)
	}
	if err != nil {
		return explain(err)
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

func (v *verifier) path(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	has := func(name string) bool {
		_, err := os.Lstat(filepath.Join(path, name))
		return err == nil
	}
	switch {
	case info.IsDir() && (has(pkgen.LedgerFile) || has(pkgen.MasterFile)):
		return v.pkg(path)
	case info.IsDir() && has(bundle.ManifestName):
		if err := v.medium(path); err != nil {
			return err
		}
		_, err := v.statements(path)
		return err
	case info.IsDir():
		if found, err := v.statements(path); found || err != nil {
			return err
		}
		return fmt.Errorf("%s holds neither a PKG nor a manifest", path)
	case filepath.Ext(path) == ".jsonl":
		return v.ledgerFile(path)
	}
	if _, err := bundle.ParseAnchorFileName(filepath.Base(path)); err == nil {
		return v.statement(path)
	}
	if isSuccession(path) {
		return v.succession(path)
	}
	return v.manifest(path)
}

// statements checks the anchor statements of a medium and reports whether there
// are any.
func (v *verifier) statements(dir string) (found bool, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if _, err := bundle.ParseAnchorFileName(e.Name()); err != nil {
			continue
		}
		if err := v.statement(filepath.Join(dir, e.Name())); err != nil {
			return true, err
		}
		found = true
	}
	return found, nil
}

func (v *verifier) statement(path string) error {
	data, err := keyfile.Read(path, bundle.MaxAnchorFile)
	if err != nil {
		return err
	}
	claimed, err := bundle.AnchorParams(data)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	set, err := pkgen.VerifyAnchors(path, v.paramsOf(claimed), v.ledger)
	if err != nil {
		return err
	}
	v.done = append(v.done, verified{"anchor", path, set.ParamsID.String(), len(set.Anchors), ""})
	return nil
}

func (v *verifier) pkg(dir string) error {
	ledger, err := pkgen.VerifyDir(dir)
	if err != nil {
		return err
	}
	if v.params != nil && v.params.ID() != ledger.Params.ID() {
		return fmt.Errorf("%s is %w: its params_id is %x", dir, bundle.ErrParams, ledger.Params.ID())
	}
	v.params, v.ledger = ledger.Params, ledger
	return v.addLedger("pkg", dir, ledger)
}

func (v *verifier) ledgerFile(path string) error {
	params := v.params
	if params == nil {
		var err error
		if params, err = pkgen.ReadParams(filepath.Join(filepath.Dir(path), pkgen.ParamsFile)); err != nil {
			return clikit.WithHint(fmt.Errorf("parameters of the ledger: %w", err), "give --params FILE")
		}
	}
	ledger, err := pkgen.ReadLedger(path, params)
	if err == nil {
		err = ledger.Log.Finished()
	}
	if err != nil {
		return err
	}
	return v.addLedger("ledger", path, ledger)
}

func (v *verifier) addLedger(kind, path string, ledger *pkgen.Ledger) error {
	if v.head != nil {
		if err := ledger.Covers(*v.head); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	v.add(kind, path, ledger.Params, len(ledger.Entries), ledger.Head())
	return nil
}

func (v *verifier) add(kind, path string, params *ibc.Params, entries int, head bundle.LedgerHead) {
	id := params.ID()
	v.done = append(v.done, verified{kind, path, hex.EncodeToString(id[:]), entries, formatHead(head)})
}

func (v *verifier) medium(dir string) error {
	params, _, err := v.manifestParams(filepath.Join(dir, bundle.ManifestName))
	if err != nil {
		return err
	}
	m, err := pkgen.VerifyMedium(dir, params, v.ledger)
	if err != nil {
		return err
	}
	v.add("medium", dir, params, len(m.Rows), m.Ledger)
	return nil
}

func (v *verifier) manifest(path string) error {
	params, data, err := v.manifestParams(path)
	if err != nil {
		return err
	}
	m, err := bundle.ParseManifest(data, params)
	if err == nil && v.ledger != nil {
		err = v.ledger.Covers(m.Ledger)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	v.add("manifest", path, params, len(m.Rows), m.Ledger)
	return nil
}

// manifestParams returns the parameters to check a manifest with.
func (v *verifier) manifestParams(path string) (*ibc.Params, []byte, error) {
	data, err := keyfile.Read(path, bundle.MaxManifestSize)
	if err != nil {
		return nil, nil, err
	}
	params, err := bundle.ManifestParams(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return v.paramsOf(params), data, nil
}
