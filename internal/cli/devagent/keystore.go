package devagent

import (
	"fmt"

	"github.com/spf13/pflag"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/tpm"
)

// The values of key_store.
const (
	keyStoreFile = "file"
	keyStoreTPM  = "tpm"
)

// keys are the settings of the commands that use private keys.
func (c *config) keys() *pflag.FlagSet {
	f := pflag.NewFlagSet(program, pflag.ContinueOnError)
	f.StringVar(&c.TPMDevice, "tpm-device", tpm.DefaultDevice, "TPM 2.0: character device, or UNIX socket")
	return f
}

// sealing are the settings of the commands that write what is provisioned.
func (c *config) sealing() *pflag.FlagSet {
	f := pflag.NewFlagSet(program, pflag.ContinueOnError)
	f.BoolVar(&c.SealToTPM, "seal-to-tpm", false, "seal the identity key to the TPM")
	return f
}

func checkKeyStore(store string, key fleet.KeyAlgorithm) error {
	switch store {
	case keyStoreFile:
		return nil
	case keyStoreTPM:
		if err := tpm.Supports(key); err != nil {
			return fmt.Errorf("key: %w", err)
		}
		return nil
	}
	return fmt.Errorf("key_store: %q is neither %s nor %s", store, keyStoreFile, keyStoreTPM)
}

// keyStores returns both, that of new keys first: keys that the other one made
// stay in use until they are renewed.
func (a *app) keyStores(c config) []agent.KeyStore {
	files, device := agent.FileKeys{Random: a.Random}, tpm.New(c.TPMDevice)
	if c.KeyStore == keyStoreTPM {
		return []agent.KeyStore{device, files}
	}
	return []agent.KeyStore{files, device}
}
