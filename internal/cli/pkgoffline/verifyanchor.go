package pkgoffline

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

func isStatement(t target) bool {
	_, err := bundle.ParseAnchorFileName(filepath.Base(t.path))
	return !t.dir && err == nil
}

// isStatements: a medium that holds statements and no manifest.
func isStatements(t target) bool {
	names, err := filepath.Glob(filepath.Join(t.path, "*"))
	return t.dir && err == nil && slices.ContainsFunc(names, func(name string) bool { return isStatement(target{path: name}) })
}

// statements checks the anchor statements of a medium.
func (v *verifier) statements(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if _, err := bundle.ParseAnchorFileName(e.Name()); err != nil {
			continue
		}
		if err := v.statement(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
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
