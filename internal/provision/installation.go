package provision

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/receipt"
)

// InstallationFile is the name of the file with the installation, which is no
// secret and never sealed.
const InstallationFile = "installation.json"

const maxInstallation = 1 << 10 // bytes

// installationFile is its form.
type installationFile struct {
	Version int                  `json:"version"`
	ID      receipt.Installation `json:"id"`
}

// Installation returns the number by which receipts tell this directory from
// others that took the same bundle. It draws one, durably, if there is none
// yet. Errors wrap ErrFile.
func (s Store) Installation(random io.Reader) (receipt.Installation, error) {
	id, err := s.loadInstallation()
	if !errors.Is(err, fs.ErrNotExist) {
		return id, err
	}
	if id, err = receipt.NewInstallation(random); err != nil {
		return id, err
	}
	data, err := json.Marshal(installationFile{version, id})
	if err != nil {
		return id, err
	}
	err = s.Files.CreateDurable(s.path(InstallationFile), append(data, '\n'), keyfile.SecretPerm)
	// Another process may have made one meanwhile: that one counts.
	if err != nil && !errors.Is(err, keyfile.ErrExists) {
		return id, fmt.Errorf("make an installation: %w", err)
	}
	return s.loadInstallation()
}

func (s Store) loadInstallation() (receipt.Installation, error) {
	data, err := keyfile.Read(s.path(InstallationFile), maxInstallation)
	if err != nil {
		return receipt.Installation{}, fmt.Errorf("read installation: %w", err)
	}
	var f installationFile
	if err := json.Unmarshal(data, &f); err != nil {
		return f.ID, fmt.Errorf("%s: %w: %w", s.path(InstallationFile), ErrFile, err)
	}
	if f.Version != version || f.ID == (receipt.Installation{}) {
		return f.ID, fmt.Errorf("%s: %w: version %d, this release reads %d", s.path(InstallationFile), ErrFile, f.Version, version)
	}
	return f.ID, nil
}
