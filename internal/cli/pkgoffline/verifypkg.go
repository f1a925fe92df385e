package pkgoffline

import (
	"fmt"
	"path/filepath"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

func isPKG(t target) bool { return t.has(pkgen.LedgerFile) || t.has(pkgen.MasterFile) }

func isLedger(t target) bool { return !t.dir && filepath.Ext(t.path) == ".jsonl" }

func (v *verifier) pkg(dir string) error {
	ledger, err := pkgen.VerifyDir(dir)
	if err != nil {
		return err
	}
	if v.params != nil && v.params.ID() != ledger.Params.ID() {
		return fmt.Errorf("%s is %w: its params_id is %x", dir, bundle.ErrParams, ledger.Params.ID())
	}
	v.params, v.ledger, v.perRun = ledger.Params, ledger, nil
	v.addLedger("pkg", dir, ledger)
	if err := v.transcripts(dir); err != nil {
		return err
	}
	return v.receiptsUnder(dir, ledger.Params)
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
	v.addLedger("ledger", path, ledger)
	return nil
}

func (v *verifier) addLedger(kind, path string, ledger *pkgen.Ledger) {
	v.ledgers = append(v.ledgers, ledger)
	v.add(kind, path, ledger.Params, len(ledger.Entries), ledger.Head())
}
