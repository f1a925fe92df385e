package clmctl

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/provision"
)

const (
	credentialFile = "credential.pem" //nolint:gosec // the name of the file with key and binding of the DTLS channel
	// earlierCredentials are those of epochs before the present one.
	earlierCredentials = "credential-e*.pem" //nolint:gosec // names of files
)

// earlierCredential names the file of an earlier epoch's credential.
func earlierCredential(params *ibc.Params) string {
	id := params.ID()
	return fmt.Sprintf("credential-e%d-%x.pem", params.Epoch(), id[:4])
}

// credentials are the keys and bindings of the DTLS channels of a CLM: that of its
// present identity, and those of the earlier epochs that are open.
type credentials struct {
	present *coaplink.Credential
	earlier []*coaplink.Credential
}

// credentials returns those of an identity. It makes what there is none of, or
// none of this identity: an earlier generation's are of no use any more. When
// a new epoch came, the present one becomes the earlier one's: devices remember it.
func (d dataDir) credentials(own *provision.Endpoint, random io.Reader) (credentials, error) {
	return d.eachCredential(own, random, func(name string, c *coaplink.Credential) error {
		data, err := c.MarshalPEM()
		if err != nil {
			return err
		}
		defer clear(data)
		return keyfile.WriteDurable(d.path(name), data, keyfile.SecretPerm)
	})
}

// quietCredentials is credentials for looking alone: what there is none of
// is made for this time, and nothing is written.
func (d dataDir) quietCredentials(own *provision.Endpoint, random io.Reader) (credentials, error) {
	return d.eachCredential(own, random, func(string, *coaplink.Credential) error { return nil })
}

func (d dataDir) eachCredential(own *provision.Endpoint, random io.Reader, keep func(name string, c *coaplink.Credential) error) (credentials, error) {
	var out credentials
	for _, past := range own.Earlier {
		if past.Key == nil {
			continue
		}
		// The present file's turn to be replaced comes after.
		c, err := d.credential(past.Key, random, keep, earlierCredential(past.Params), credentialFile)
		if err != nil {
			return out, err
		}
		out.earlier = append(out.earlier, c)
	}
	var err error
	out.present, err = d.credential(own.Key, random, keep, credentialFile)
	return out, err
}

// credential returns the credential of a key from the first of the files that has
// it, and keeps it in the first one.
func (d dataDir) credential(key *ibc.PrivateKey, random io.Reader, keep func(string, *coaplink.Credential) error, files ...string) (*coaplink.Credential, error) {
	for i, name := range files {
		c, err := d.readCredential(name, key)
		switch {
		case err == nil && i == 0:
			return c, nil
		case err == nil:
			return c, keep(files[0], c)
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, coaplink.ErrCredential):
			return nil, err
		}
	}
	c, err := coaplink.NewCredential(key, random)
	if err != nil {
		return nil, fmt.Errorf("make DTLS credential: %w", err)
	}
	return c, keep(files[0], c)
}

// readCredential reads a credential of a key. Errors wrap fs.ErrNotExist, or
// coaplink.ErrCredential if it is of another.
func (d dataDir) readCredential(name string, key *ibc.PrivateKey) (*coaplink.Credential, error) {
	stored, err := keyfile.ReadSecret(d.path(name), maxKeyFile)
	defer clear(stored)
	if err != nil {
		return nil, fmt.Errorf("read DTLS credential: %w", err)
	}
	return coaplink.ParseCredential(stored, key)
}

// wipeCredentials overwrites the credentials of epochs that are not open.
func (d dataDir) wipeCredentials(own *provision.Endpoint) error {
	found, err := filepath.Glob(d.path(earlierCredentials))
	if err != nil {
		return err
	}
	for _, path := range found {
		used := slices.ContainsFunc(own.Earlier, func(past provision.Epoch) bool {
			return past.Key != nil && d.path(earlierCredential(past.Params)) == path
		})
		if used {
			continue
		}
		if err := (keyfile.Files{}).Wipe(path); err != nil {
			return err
		}
	}
	return nil
}
