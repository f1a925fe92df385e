package pkgoffline

import (
	"fmt"

	"github.com/edgeclm/edgeclm/internal/custody"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

// recoverySharing checks the description of the shares of a recovery key: with a
// ledger at hand, of that PKG's.
func (v *verifier) recoverySharing(path string) error {
	s, err := pkgen.ReadRecoverySharing(path)
	if err != nil {
		return err
	}
	paramsID := ""
	if v.ledger != nil {
		if s.Recovery() != v.ledger.Recovery() {
			return fmt.Errorf("%s: %w: the ledger records another recovery key", path, pkgen.ErrForeign)
		}
		paramsID = formatID(v.ledger.Params)
	}
	v.done = append(v.done, verified{"recovery-shares", path, paramsID, len(s.Holders()), ""})
	return nil
}

// isRecoverySharing reports whether a file says that it describes shares of a
// recovery key.
func isRecoverySharing(t target) bool {
	if t.dir {
		return false
	}
	data, err := keyfile.Read(t.path, custody.MaxSharingFile)
	return err == nil && custody.IsRecoverySharing(data)
}
