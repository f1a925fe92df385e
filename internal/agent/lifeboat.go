package agent

import (
	"context"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/lifeboat"
	"github.com/edgeclm/edgeclm/internal/provision"
)

// Lifeboat implements the service by which the device leaves its PKG for
// another one: a statement signed by the recovery key, and behind it the bundle
// of the new PKG, sealed to this device's recipient. Who brings it does not
// matter. Once it returns, the device is who the bundle says, and all that it
// was, knew or had begun under the old root is void. The lifeboat that was taken
// last brings a bundle as Bundle does.
func (a *Agent) Lifeboat(ctx context.Context, from string, data []byte) error {
	signed, sealed, err := lifeboat.Parse(data)
	if err != nil {
		return unacceptable(err)
	}
	return a.alone(ctx, func(st state) error {
		statement, again, err := a.present().Heed(signed)
		if err != nil {
			return unacceptable(err)
		}
		opener, _, err := a.dir.provisioned().Recipient()
		if err != nil {
			return err
		}
		b, err := bundle.Open(sealed, opener)
		if err != nil {
			return unacceptable(err)
		}
		if again {
			_, err := a.become(b, from)
			return unacceptable(err)
		}
		before := a.Identity()
		if _, err := a.succeed(func(e *provision.Endpoint) (*provision.Endpoint, error) { return e.Reroot(statement, b) }); err != nil {
			return unacceptable(err)
		}
		id := b.Params.ID()
		a.cfg.Log.Warn("A LIFEBOAT WAS TAKEN: this device has another root of trust",
			"serial", statement.Serial, "params_id", bundle.Hash(id), "identity", b.Identity, "before", before, "brought_by", from)
		a.shed(st, statement.Serial)
		return nil
	})
}

// Root tells roots of trust apart: it is another one after each lifeboat.
func (a *Agent) Root() uint32 { return a.present().Lifeboat.Serial }

// shed makes the state one of the root of a lifeboat, in the device's turn. The
// device has that root already: that its state cannot be stored is no reason to
// deny it, and the next start does it.
func (a *Agent) shed(st state, root uint32) state {
	st = st.under(root)
	if err := a.commit(st); err != nil {
		a.cfg.Log.Error("store that what the old root left is void", "error", err)
		a.set(st)
	}
	return st
}
