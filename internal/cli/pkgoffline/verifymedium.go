package pkgoffline

import (
	"fmt"
	"path/filepath"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

func isMedium(t target) bool { return t.has(bundle.ManifestName) }

// wholeMedium checks the bundles of a medium, and the statements and receipts
// beside them.
func (v *verifier) wholeMedium(dir string) error {
	if err := v.medium(dir); err != nil {
		return err
	}
	if err := v.statements(dir); err != nil {
		return err
	}
	if err := v.lifeboats(dir); err != nil {
		return err
	}
	params, _, err := v.manifestParams(filepath.Join(dir, bundle.ManifestName))
	if err != nil {
		return err
	}
	return v.receiptsUnder(dir, params)
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
