package clmctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/provision"
	"github.com/edgeclm/edgeclm/internal/scep"
)

// dataDir is the data directory of a CLM, 0700. Beside what package provision
// keeps there it holds the files named here, all 0600 but params.json.
type dataDir string

const (
	configFile    = "config.yaml"  // the configuration, unless --config names another
	paramsFile    = "params.json"  // the PKG's public parameters
	raFile        = "ra.pem"       // key and certificate that sign SCEP requests
	authorityFile = "ca.json"      // the CA in use
	inventoryFile = "inventory.db" // devices, enrolments, history
	lockFile      = "lock"         // held while the files above are changed
)

const maxKeyFile = 32 << 10 // bytes

func (d dataDir) path(name string) string { return filepath.Join(string(d), name) }

func (d dataDir) provision() provision.Store {
	return provision.Store{Dir: string(d), Role: ibc.RoleCLM}
}

// lock makes the directory if need be and keeps other processes from changing
// its files.
func (d dataDir) lock() (unlock func() error, err error) {
	if err := keyfile.EnsureDir(string(d)); err != nil {
		return nil, err
	}
	unlock, err = keyfile.Lock(d.path(lockFile))
	if errors.Is(err, keyfile.ErrLocked) {
		err = clikit.WithHint(err, "wait until the other command has ended")
	}
	return unlock, err
}

// identity returns who the CLM is, with its keys of earlier epochs. The caller
// destroys it.
func (d dataDir) identity() (*provision.Endpoint, error) {
	own, err := d.provision().Load()
	if errors.Is(err, provision.ErrNone) {
		return nil, clikit.WithHint(clikit.Usage("the CLM in %s has no identity yet", d),
			"clmctl recipient, then pkg-offline issue --role clm, then clmctl init --bundle FILE")
	}
	if err != nil {
		return nil, fmt.Errorf("own identity: %w", err)
	}
	return own, nil
}

// writeParams writes params.json, the one public file.
func (d dataDir) writeParams(p *ibc.Params) error { return d.writeParamsTo(paramsFile, p) }

func (d dataDir) writeParamsTo(name string, p *ibc.Params) error {
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return fmt.Errorf("encode parameters: %w", err)
	}
	return keyfile.WriteDurable(d.path(name), append(data, '\n'), keyfile.PublicPerm)
}

// ra returns the key that signs SCEP requests, and makes one if there is none.
func (d dataDir) ra(name string, random io.Reader) (scep.RA, error) {
	stored, err := keyfile.ReadSecret(d.path(raFile), maxKeyFile)
	defer clear(stored)
	if err == nil {
		ra, err := scep.ParseRA(stored)
		if err != nil {
			return scep.RA{}, fmt.Errorf("%s: %w", d.path(raFile), err)
		}
		return ra, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return scep.RA{}, fmt.Errorf("read RA key: %w", err)
	}
	ra, err := scep.GenerateRA(random, name)
	if err != nil {
		return scep.RA{}, err
	}
	data, err := ra.MarshalPEM()
	if err != nil {
		return scep.RA{}, err
	}
	defer clear(data)
	return ra, keyfile.WriteDurable(d.path(raFile), data, keyfile.SecretPerm)
}
