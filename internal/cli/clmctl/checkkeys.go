package clmctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/scep"
)

// checkKeys looks at the keys of this CLM: identity, channel, requests.
func (c *checkup) checkKeys(context.Context) {
	const check = "identity"
	identity, err := c.site.dir.identity()
	if err != nil {
		c.failError(check, "bring a new bundle from the PKG: pkg-offline issue --role clm, then clmctl init --bundle FILE", err)
		return
	}
	c.identity = identity
	switch err := c.sameParams(identity.Params); {
	case err != nil:
		c.warn(check, "clmctl init --bundle FILE, with the bundle that this CLM has, writes it anew", "%s: %v", paramsFile, err)
	default:
		c.ok(check, "%s, its key fits the parameters of epoch %d", identity.Identity, identity.Params.Epoch())
	}
	c.checkCredential("channel key", credentialFile, identity.Key)
	for _, past := range identity.Earlier {
		if past.Key != nil {
			c.checkCredential(fmt.Sprintf("channel key of epoch %d", past.Params.Epoch()), earlierCredential(past.Params), past.Key)
		}
	}
	c.checkRA()
}

// sameParams reports whether params.json, which others take from here, is of
// the identity's PKG and epoch.
func (c *checkup) sameParams(want *ibc.Params) error {
	data, err := keyfile.Read(c.site.dir.path(paramsFile), maxKeyFile)
	if err != nil {
		return err
	}
	var got ibc.Params
	if err := json.Unmarshal(data, &got); err != nil {
		return err
	}
	if !got.Equal(want) {
		return errors.New("it is not of the PKG and epoch of the identity")
	}
	return nil
}

func (c *checkup) checkCredential(check, file string, key *ibc.PrivateKey) {
	_, err := c.site.dir.readCredential(file, key)
	if errors.Is(err, fs.ErrNotExist) {
		c.ok(check, "none yet: the first contact with a device makes it")
		return
	}
	switch {
	case errors.Is(err, coaplink.ErrCredential):
		c.ok(check, "of an earlier identity: the next contact with a device makes a new one")
	case err != nil:
		c.fail(check, "move "+c.site.dir.path(file)+" away: the next contact with a device makes a new one", "%v", err)
	default:
		c.ok(check, "it is bound to the identity")
	}
}

func (c *checkup) checkRA() {
	const check = "RA key"
	path := c.site.dir.path(raFile)
	stored, err := keyfile.ReadSecret(path, maxKeyFile)
	defer clear(stored)
	if errors.Is(err, fs.ErrNotExist) {
		c.ok(check, "none yet: clmctl ca add makes it")
		return
	}
	var ra scep.RA
	if err == nil {
		ra, err = scep.ParseRA(stored)
	}
	if err != nil {
		c.fail(check, "move "+path+" away: the next run makes a new one, which a CA that knows the old one has to be told", "%v", err)
		return
	}
	c.checkExpiry(check, "ask the CA's operator for a new RA certificate", ra.Certificate)
}

// checkEpochs says which earlier epochs are open, and how many devices are
// behind in one. An open one is a key that can be stolen.
func (c *checkup) checkEpochs(devicesOf map[uint32]int) {
	const check = "epochs"
	if c.identity == nil {
		return
	}
	for _, e := range viewEpochs(c.identity) {
		n := devicesOf[e.Epoch]
		switch {
		case e.State == epochOpen && n > 0:
			c.warn(check, "clmctl epoch show says why; clmctl device deliver brings what waits", "epoch %d is open, with %s still in it", e.Epoch, devices(n))
		case e.State == epochOpen:
			c.warn(check, "clmctl epoch close", "epoch %d is open, and no device is left in it", e.Epoch)
		case e.State == epochClosed && n > 0:
			c.warn(check, "carry their bundles there by hand: clmctl epoch show", "epoch %d is closed, with %s left behind", e.Epoch, devices(n))
		}
	}
}
