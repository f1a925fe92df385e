package pkgoffline

import (
	"crypto/rand"
	"errors"
	"path/filepath"
	"strings"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/pkgen"
	"github.com/edgeclm/edgeclm/internal/receipt"
)

var errNoParams = errors.New("nothing says under which parameters receipts verify")

// isReceipts is a receipt, or a directory of them without a manifest.
func isReceipts(t target) bool {
	if !t.dir {
		return strings.HasSuffix(strings.ToLower(t.path), receipt.Suffix)
	}
	return t.has(receipt.DirName) || filepath.Base(t.path) == receipt.DirName
}

// receipts checks the signatures of receipts. They say nothing of themselves
// about whose parameters they are to be held to.
func (v *verifier) receipts(path string) error {
	if v.params == nil {
		return clikit.WithHint(errNoParams, "give the PKG's --dir, or --params FILE")
	}
	return v.receiptsUnder(path, v.params)
}

// receiptsUnder adds what there is in a path to what was checked, if anything.
func (v *verifier) receiptsUnder(path string, params *ibc.Params) error {
	known := []*ibc.Params{params}
	if v.ledger != nil {
		known = v.ledger.Epochs()
	}
	n, err := pkgen.VerifyReceipts(rand.Reader, path, known)
	if err != nil || n == 0 {
		return err
	}
	v.done = append(v.done, verified{"receipts", path, formatID(params), n, ""})
	return nil
}
