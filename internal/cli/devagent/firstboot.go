package devagent

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
)

// errNoBundle is that provision --first-boot finds nothing to take.
var errNoBundle = errors.New("there is no key bundle")

// firstBoot takes what a memory card brought; serve does it at each start. An
// error is of no importance to a device that has an identity.
func (a *app) firstBoot(c config, log *slog.Logger) error {
	if c.FirstBootDir == "" {
		return nil
	}
	want, err := c.paramsID()
	if err != nil {
		return err
	}
	done, err := agent.FirstBoot{
		Dir: c.DataDir, From: c.FirstBootDir, ParamsID: want, KeyStores: a.keyStores(c), Seal: c.SealToTPM,
		Taken: func(path string, b *bundle.Bundle, changed bool) error {
			receipt, err := a.leaveReceipt(c, clikit.Receipt{}, path, b, changed)
			if receipt != "" {
				log.Info("left a receipt beside the bundle", "path", receipt)
			}
			return err
		},
	}.Run()
	if err != nil {
		return err
	}
	if done.Changed {
		log.Info("took the identity that the memory card brought", "identity", done.Identity, "params_id", done.ParamsID)
	}
	if len(done.Wiped) > 0 {
		log.Info("wiped "+strings.Join(done.Wiped, ", "), "note", flashNote)
	}
	if done.Unwiped != nil {
		log.Error("the bundle is still on the memory card", "error", done.Unwiped)
	}
	return nil
}

// flashNote says what wiping is worth.
const flashNote = "flash may keep old blocks: what protects a lost card is the next generation of the key"

// provisionFirstBoot is provision --first-boot.
func (a *app) provisionFirstBoot(ctx context.Context, c config, k clikit.KeyBundle, r clikit.Receipt, dir string) error {
	want, err := c.paramsID()
	if err != nil {
		return err
	}
	var receipt string
	done, err := agent.FirstBoot{
		Dir: c.DataDir, From: dir, ParamsID: want, KeyStores: a.keyStores(c), Seal: c.SealToTPM,
		PIN: func() ([]byte, error) { return k.Passphrase(ctx, a.Streams, &a.Common, program) },
		Taken: func(path string, b *bundle.Bundle, changed bool) (err error) {
			receipt, err = a.leaveReceipt(c, r, path, b, changed)
			return err
		},
	}.Run()
	if err != nil {
		return err
	}
	for _, path := range done.Wiped {
		a.note("wiped %s", path)
	}
	if done.Untold != nil {
		return done.Untold
	}
	if done.Unwiped != nil {
		return clikit.WithHint(done.Unwiped, "the identity is there; mount the partition for writing and run this again to wipe the bundle")
	}
	if done.Identity.Name == "" {
		if len(done.Wiped) > 0 {
			return nil
		}
		return clikit.WithHint(errNoBundle, "put this device's bundle, and its PIN in pin.txt, into "+dir)
	}
	if r.Stdout() {
		return nil
	}
	return a.renderProvisioned(done.Identity, done.ParamsID, done.Changed, receipt)
}
