package devagent

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"github.com/edgeclm/edgeclm/internal/agent"
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
func (a *app) provisionFirstBoot(ctx context.Context, c config, k clikit.KeyBundle, dir string) error {
	want, err := c.paramsID()
	if err != nil {
		return err
	}
	done, err := agent.FirstBoot{
		Dir: c.DataDir, From: dir, ParamsID: want, KeyStores: a.keyStores(c), Seal: c.SealToTPM,
		PIN: func() ([]byte, error) { return k.Passphrase(ctx, a.Streams, &a.Common, program) },
	}.Run()
	if err != nil {
		return err
	}
	for _, path := range done.Wiped {
		a.note("wiped %s", path)
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
	return a.renderProvisioned(done.Identity, done.ParamsID, done.Changed)
}
