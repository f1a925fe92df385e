package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/store"
)

// putAssets binds assets to devices. All of them are set free first, so that
// one delivery may exchange them.
func (c *commissioning) putAssets(ctx context.Context, t *tx) error {
	known := make([]*record, len(c.Assets))
	for i, a := range c.Assets {
		var err error
		if err = a.Validate(); err != nil {
			return err
		}
		if known[i], err = t.record(ctx, a.Device); err != nil {
			return err
		}
		if !known[i].device.InService() && a.Asset != "" {
			return fmt.Errorf("%w: %w", store.ErrInvalid, known[i].outOfService())
		}
		if known[i].device.Asset != a.Asset {
			if err := t.exec(ctx, "UPDATE device SET asset = NULL WHERE id = ?", known[i].id); err != nil {
				return err
			}
		}
	}
	for i, a := range c.Assets {
		if known[i].device.Asset == a.Asset {
			c.tally.Note(a.Device, store.Unchanged)
			continue
		}
		if err := c.bind(ctx, t, known[i].id, a); err != nil {
			return err
		}
		c.tally.Note(a.Device, store.Updated)
	}
	return nil
}

func (c *commissioning) bind(ctx context.Context, t *tx, id int64, a store.Asset) error {
	message := "no asset"
	if a.Asset != "" {
		// A name that stands for two devices selects neither.
		var other string
		err := t.queryRow(ctx, "SELECT name FROM device WHERE id <> ?1 AND (asset = ?2 COLLATE NOCASE OR name = ?2)", []any{id, a.Asset}, &other)
		if err == nil {
			return fmt.Errorf("%w: %s cannot be %q, which is %s", store.ErrInvalid, a.Device, a.Asset, other)
		}
		if !errors.Is(explain(err), enrol.ErrNotFound) {
			return err
		}
		if err := t.exec(ctx, "UPDATE device SET asset = ? WHERE id = ?", a.Asset, id); err != nil {
			return err
		}
		message = a.Asset
	}
	if err := t.exec(ctx, "INSERT INTO asset (device, asset, source, since) VALUES (?, ?, ?, ?)", id, a.Asset, c.Source, timestamp{&c.At}); err != nil {
		return err
	}
	return t.putEvent(ctx, &enrol.Event{At: c.At, Device: a.Device, Kind: store.EventBound, Message: message + " from " + c.Source})
}

// assets returns the bindings of a device, oldest first.
func (v *view) assets(ctx context.Context, device int64) ([]store.AssetEntry, error) {
	var out []store.AssetEntry
	err := v.scan(ctx, "SELECT asset, source, since FROM asset WHERE device = ? ORDER BY id", []any{device}, func(rows *sql.Rows) error {
		var a store.AssetEntry
		err := rows.Scan(textOf(&a.Asset), textOf(&a.Source), timestamp{&a.Since})
		out = append(out, a)
		return err
	})
	return out, err
}

const selectNamed = `SELECT coalesce(
	(SELECT name FROM device WHERE name = ?),
	(SELECT name FROM device WHERE asset = ? COLLATE NOCASE AND asset IS NOT NULL))`

// nameOf returns the name of the device that a name, or else an asset, stands
// for; enrol.ErrNotFound if there is none.
func (v *view) nameOf(ctx context.Context, named string) (string, error) {
	var name string
	err := v.queryRow(ctx, selectNamed, []any{named, named}, textOf(&name))
	if err == nil && name == "" {
		err = sql.ErrNoRows
	}
	if err != nil {
		return "", fmt.Errorf("device %s: %w", named, explain(err))
	}
	return name, nil
}
