package clmctl

import (
	"context"
	"errors"
	"io/fs"

	"github.com/edgeclm/edgeclm/internal/store"
	"github.com/edgeclm/edgeclm/internal/store/sqlite"
)

// leaseFile is where the inventory keeps its leases.
const leaseFile = "leases.lock"

// checkInventory looks at every page of the inventory, and opens it if nothing
// is wrong with it. An inventory of an earlier release stays as it is.
func (c *checkup) checkInventory(ctx context.Context) {
	const check = "inventory"
	const restore = "stop every clmctl, keep a copy of the data directory, and restore inventory.db from a backup"
	path := c.site.dir.path(inventoryFile)
	found, err := sqlite.Examine(ctx, path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.warn(check, "clmctl commission manifest.json", "there is none yet")
		return
	case errors.Is(err, store.ErrForeign):
		c.fail(check, "move the file away, or give another --data-dir", "%v", err)
		return
	case errors.Is(err, store.ErrFull):
		c.fail(check, "make room on its file system: it is whole, and is read again then", "%v", err)
		return
	case err != nil:
		c.fail(check, restore, "%v", err)
		return
	case len(found.Problems) > 0:
		c.fail(check, restore, "it is damaged: %s", few(found.Problems))
		return
	case found.Schema > found.Known:
		c.fail(check, "install the release of clmctl that wrote it, or a later one", "its schema has version %d, this release knows up to %d", found.Schema, found.Known)
		return
	case found.Schema < found.Known:
		c.warn(check, "back the data directory up; any other command that works on devices brings it up to date", "it is sound; its schema has version %d, this release has %d", found.Schema, found.Known)
		return
	}
	c.ok(check, "it is sound: %s, schema %d", bytesText(found.Bytes), found.Schema)
	if c.inventory, err = c.site.dir.inventory(ctx, true); err != nil {
		c.failError(check, restore, err)
	}
}
