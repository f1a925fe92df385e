package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/store"
)

// PutDevices stores a delivery in one transaction, or nothing of it.
//
// A row of a later (epoch, generation) replaces the identity, an earlier one is
// skipped and counted; address, labels and names follow the higher ledger
// index. So rows may arrive in any order, and twice. What an operator decided
// (Delivery.Addresses, SetLabels) stays in force over what manifests say until
// it is taken back. An address for a device that is not known wraps
// enrol.ErrNotFound, a row that is no device's store.ErrInvalid.
func (s *Store) PutDevices(ctx context.Context, d store.Delivery) (store.Counts, error) {
	c := commissioning{Delivery: d, updated: map[string]bool{}}
	err := s.writer.do(ctx, func(inside context.Context, t *tx) error {
		for i := range d.Rows {
			if err := errors.Join(ctx.Err(), c.putRow(inside, t, &d.Rows[i])); err != nil {
				return err
			}
		}
		for _, a := range d.Addresses {
			if err := c.putManualAddress(inside, t, a); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return store.Counts{}, fmt.Errorf("commission devices: %w", err)
	}
	return c.counts(), nil
}

// commissioning is a delivery and what came of it.
type commissioning struct {
	store.Delivery
	added, skipped int
	updated        map[string]bool // by name: known before; whether it changed
}

func (c *commissioning) counts() store.Counts {
	n := store.Counts{Added: c.added, Skipped: c.skipped}
	for _, changed := range c.updated {
		if changed {
			n.Updated++
		} else {
			n.Unchanged++
		}
	}
	return n
}

// claim is what the inventory says about a device because others said so.
type claim struct {
	id            int64
	identity      ibc.Identity
	ledgerIndex   uint64
	address       string
	addressManual sql.NullString
	labels        map[string]string
	names         []fleet.Name
}

// columns are those that rows of manifests decide.
func (c *claim) columns() []column {
	return []column{
		{"epoch", integerOf(&c.identity.Epoch)},
		{"generation", integerOf(&c.identity.Generation)},
		{"ledger_index", integerOf(&c.ledgerIndex)},
		{"address", textOf(&c.address)},
		{"labels", document{&c.labels}},
		{"names", document{&c.names}},
	}
}

// effective is the address that counts.
func (c *claim) effective() string {
	if c.addressManual.Valid {
		return c.addressManual.String
	}
	return c.address
}

var (
	selectClaim = "SELECT id, address_manual, " + nameList(new(claim).columns()) + " FROM device WHERE name = ?"
	updateClaim = "UPDATE device SET " + assignments(new(claim).columns()) + " WHERE id = ?"
	insertClaim = "INSERT INTO device (" + nameList(new(claim).columns()) + ", name, commissioned_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)

// claim returns enrol.ErrNotFound for a device that is not known.
func (t *tx) claim(ctx context.Context, name string) (*claim, error) {
	c := &claim{identity: ibc.Identity{Role: ibc.RoleDevice, Name: name}}
	err := t.queryRow(ctx, selectClaim, []any{name}, append([]any{&c.id, &c.addressManual}, values(c.columns())...)...)
	if err != nil {
		return nil, fmt.Errorf("device %s: %w", name, explain(err))
	}
	return c, nil
}

func (c *commissioning) putRow(ctx context.Context, t *tx, row *store.Row) error {
	if err := validateRow(row); err != nil {
		return err
	}
	name := row.Identity.Name
	known, err := t.claim(ctx, name)
	if errors.Is(err, enrol.ErrNotFound) {
		return c.add(ctx, t, row)
	}
	if err != nil {
		return err
	}
	order := row.Identity.Compare(known.identity)
	if order < 0 {
		c.skipped++
		return nil
	}
	next := *known
	next.identity = row.Identity
	changed := order > 0
	if row.LedgerIndex > known.ledgerIndex {
		next.ledgerIndex, next.address, next.labels, next.names = row.LedgerIndex, row.Address, row.Labels, row.Names
		changed = changed || next.address != known.address || !maps.Equal(next.labels, known.labels) || !slices.Equal(next.names, known.names)
	}
	c.note(name, changed)
	if !changed && next.ledgerIndex == known.ledgerIndex {
		return nil
	}
	if err := t.exec(ctx, updateClaim, values(next.columns(), next.id)...); err != nil {
		return err
	}
	if order > 0 {
		if err := c.noteIdentity(ctx, t, row.Identity); err != nil {
			return err
		}
	}
	return c.noteAddress(ctx, t, known, &next)
}

func (c *commissioning) add(ctx context.Context, t *tx, row *store.Row) error {
	known := &claim{identity: row.Identity, ledgerIndex: row.LedgerIndex, address: row.Address, labels: row.Labels, names: row.Names}
	id, err := t.insert(ctx, insertClaim, values(known.columns(), row.Identity.Name, timestamp{&c.At})...)
	if err != nil {
		return err
	}
	known.id = id
	c.added++
	if err := c.noteIdentity(ctx, t, row.Identity); err != nil {
		return err
	}
	return c.noteAddress(ctx, t, &claim{}, known)
}

// putManualAddress sets or takes back what an operator says.
func (c *commissioning) putManualAddress(ctx context.Context, t *tx, a store.Address) error {
	known, err := t.claim(ctx, a.Device)
	if err != nil {
		return err
	}
	next := *known
	next.addressManual = sql.NullString{String: a.Address, Valid: a.Address != ""}
	c.note(a.Device, next.addressManual != known.addressManual)
	if err := t.exec(ctx, "UPDATE device SET address_manual = ? WHERE id = ?", next.addressManual, next.id); err != nil {
		return err
	}
	return c.noteAddress(ctx, t, known, &next)
}

// note counts a device that was known before, once.
func (c *commissioning) note(name string, changed bool) {
	c.updated[name] = c.updated[name] || changed
}

func (c *commissioning) noteIdentity(ctx context.Context, t *tx, id ibc.Identity) error {
	return t.putEvent(ctx, &enrol.Event{At: c.At, Device: id.Name, Kind: store.EventCommissioned, Message: id.String() + " from " + c.Source})
}

// noteAddress keeps the history of the address that counts.
func (c *commissioning) noteAddress(ctx context.Context, t *tx, was, is *claim) error {
	if was.effective() == is.effective() {
		return nil
	}
	return t.exec(ctx, "INSERT INTO address (device, address, source, manual, since) VALUES (?, ?, ?, ?, ?)",
		is.id, is.effective(), c.Source, flag{&is.addressManual.Valid}, timestamp{&c.At})
}

func validateRow(row *store.Row) error {
	if err := row.Identity.Validate(); err != nil {
		return fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	if row.Identity.Role != ibc.RoleDevice {
		return fmt.Errorf("%w: %s is no device", store.ErrInvalid, row.Identity)
	}
	if row.LedgerIndex > math.MaxInt64 {
		return fmt.Errorf("%w: the ledger index %d of %s", store.ErrInvalid, row.LedgerIndex, row.Identity.Name)
	}
	if err := fleet.ValidateLabels(row.Labels); err != nil {
		return fmt.Errorf("%w: %s: %w", store.ErrInvalid, row.Identity.Name, err)
	}
	return nil
}
