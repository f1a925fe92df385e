package pkgoffline

import (
	"os"
	"path/filepath"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/lifeboat"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

// lifeboat checks a lifeboat statement. With a ledger at hand it must be signed
// by the recovery key of that PKG, or lead to it.
func (v *verifier) lifeboat(path string) error {
	l, err := pkgen.VerifyLifeboat(path, v.ledger)
	if err != nil {
		return err
	}
	v.done = append(v.done, verified{"lifeboat", path, bundle.Hash(l.Statement.Params.ID()).String(), 1, ""})
	return nil
}

// lifeboats checks those of a medium.
func (v *verifier) lifeboats(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !e.IsDir() && isLifeboat(path) {
			if err := v.lifeboat(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// isLifeboat reports whether a file may be a lifeboat statement.
func isLifeboat(path string) bool {
	if filepath.Ext(path) != ".statement" {
		return false
	}
	data, err := keyfile.Read(path, lifeboat.MaxSize)
	return err == nil && lifeboat.Is(data)
}
