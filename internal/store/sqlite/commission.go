package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/store"
)

// PutDevices stores a delivery in one transaction, or nothing of it.
//
// A row of a later (epoch, generation) replaces the identity, unless its bundle
// can be handed over (store.Delivery.Receive); an earlier one is skipped and
// counted; address, labels and names follow the higher ledger
// index. So rows may arrive in any order, and twice. What an operator decided
// (Delivery.Addresses, SetLabels) stays in force over what manifests say until
// it is taken back. A device that was decommissioned stays that unless a row has
// a higher ledger index than is known, or Delivery.Reinstate is set. An address for a device that is not known wraps
// enrol.ErrNotFound, as one for an asset does; a row that is no device's, and an
// asset that is taken, store.ErrInvalid.
func (s *Store) PutDevices(ctx context.Context, d store.Delivery) (store.Counts, error) {
	c := commissioning{Delivery: d}
	err := s.writer.do(ctx, func(inside context.Context, t *tx) error {
		for i := range d.Rows {
			if err := errors.Join(ctx.Err(), c.putRow(inside, t, d.Rows[i])); err != nil {
				return err
			}
		}
		for _, a := range d.Addresses {
			if err := c.putManualAddress(inside, t, a); err != nil {
				return err
			}
		}
		return c.putAssets(inside, t)
	})
	if err != nil {
		return store.Counts{}, fmt.Errorf("commission devices: %w", err)
	}
	return c.tally.Counts(), nil
}

// commissioning is a delivery and what came of it.
type commissioning struct {
	store.Delivery
	tally store.Tally
}

// claim is what the inventory says about a device because others said so.
type claim struct {
	store.Row
	id     int64
	manual sql.NullString // the operator's address
	next   uint64         // the version of the bundle that waits, 0 for none
	out    time.Time      // since when it is out of service; zero: it is not
	keyed  bool           // its public key is on record
}

// nextIdentity is that of the bundle that waits.
func (c *claim) nextIdentity() ibc.Identity {
	return enrol.Delivery{Device: c.Identity.Name, Kind: enrol.DeliverBundle, Version: c.next}.Identity()
}

// columns are those that rows of manifests decide.
func (c *claim) columns() []column {
	return []column{
		{"epoch", integerOf(&c.Identity.Epoch)},
		{"generation", integerOf(&c.Identity.Generation)},
		{"ledger_index", integerOf(&c.LedgerIndex)},
		{"address", textOf(&c.Address)},
		{"labels", document{&c.Labels}},
		{"names", document{&c.Names}},
	}
}

// effective is the address that counts.
func (c *claim) effective() string {
	if c.manual.Valid {
		return c.manual.String
	}
	return c.Address
}

var (
	selectClaim = "SELECT id, address_manual, decommissioned_at, public_key IS NOT NULL, " + selectNext + ", " + nameList(new(claim).columns()) + " FROM device WHERE name = ?"
	updateClaim = "UPDATE device SET " + assignments(new(claim).columns()) + " WHERE id = ?"
	insertClaim = "INSERT INTO device (" + nameList(new(claim).columns()) + ", name, commissioned_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)

// claim returns enrol.ErrNotFound for a device that is not known.
func (t *tx) claim(ctx context.Context, name string) (*claim, error) {
	c := &claim{}
	c.Identity.Role, c.Identity.Name = ibc.RoleDevice, name
	err := t.queryRow(ctx, selectClaim, []any{name}, append([]any{&c.id, &c.manual, timestamp{&c.out}, flag{&c.keyed}, integerOf(&c.next)}, values(c.columns())...)...)
	if err != nil {
		return nil, fmt.Errorf("device %s: %w", name, explain(err))
	}
	return c, nil
}

func (c *commissioning) putRow(ctx context.Context, t *tx, row store.Row) error {
	if err := row.Validate(); err != nil {
		return err
	}
	known, err := t.claim(ctx, row.Identity.Name)
	if errors.Is(err, enrol.ErrNotFound) {
		return c.add(ctx, t, row)
	}
	if err != nil {
		return err
	}
	if !known.out.IsZero() {
		return c.returnRow(ctx, t, known, row)
	}
	if leaves, err := c.leaves(ctx, t, known.id); err != nil {
		return err
	} else if leaves {
		return c.board(ctx, t, known, row)
	}
	merged, queue, outcome := c.Receive(known.Row, known.nextIdentity(), row)
	c.tally.Note(row.Identity.Name, outcome)
	if queue {
		if err := c.queue(ctx, t, row); err != nil {
			return err
		}
	}
	if outcome != store.Updated && merged.LedgerIndex == known.LedgerIndex {
		return c.putPublicKey(ctx, t, known, row)
	}
	return c.update(ctx, t, known, merged, row)
}

// update stores what is known after a row.
func (c *commissioning) update(ctx context.Context, t *tx, known *claim, merged, row store.Row) error {
	next := &claim{Row: merged, id: known.id, manual: known.manual}
	if err := t.exec(ctx, updateClaim, values(next.columns(), next.id)...); err != nil {
		return err
	}
	next.keyed = known.keyed && next.Identity == known.Identity
	if err := c.putPublicKey(ctx, t, next, row); err != nil {
		return err
	}
	if next.Identity != known.Identity {
		if err := c.noteIdentity(ctx, t, next.Identity); err != nil {
			return err
		}
	}
	return c.noteAddress(ctx, t, known, next)
}

// returnRow takes a row of a device that is out of service. Nothing is handed
// over: with the row the earlier identity, which somebody may have found in the
// scrap, is refused.
func (c *commissioning) returnRow(ctx context.Context, t *tx, known *claim, row store.Row) error {
	merged, outcome := known.Merge(row)
	if outcome == store.Skipped || row.LedgerIndex <= known.LedgerIndex && !c.Reinstate {
		c.tally.NoteDecommissioned(row.Identity.Name, outcome)
		return nil
	}
	c.tally.NoteReinstated(row.Identity.Name)
	if err := t.exec(ctx, "UPDATE device SET decommissioned_at = NULL WHERE id = ?", known.id); err != nil {
		return err
	}
	if merged.Identity == known.Identity { // else update notes it
		if err := c.noteIdentity(ctx, t, merged.Identity); err != nil {
			return err
		}
	}
	return c.update(ctx, t, known, merged, row)
}

// putPublicKey keeps the public key that a row brings, if it is that of the
// device's identity and not on record.
func (c *commissioning) putPublicKey(ctx context.Context, t *tx, known *claim, row store.Row) error {
	if known.keyed || len(row.PublicKey) == 0 || row.Identity != known.Identity {
		return nil
	}
	return t.exec(ctx, updatePublicKey, row.PublicKey, known.id)
}

// queue queues a row's bundle.
func (c *commissioning) queue(ctx context.Context, t *tx, row store.Row) error {
	return c.queueDelivery(ctx, t, enrol.NewDelivery(row.Identity.Name, enrol.DeliverBundle, enrol.BundleVersion(row.Identity), row.Sealed, c.At))
}

func (c *commissioning) queueDelivery(ctx context.Context, t *tx, d enrol.Delivery) error {
	isNew, err := t.queue(ctx, &d)
	if err != nil {
		return fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	if isNew {
		c.tally.NoteQueued(d.Device)
	}
	return nil
}

func (c *commissioning) add(ctx context.Context, t *tx, row store.Row) error {
	first, queue := c.Begin(row)
	next := &claim{Row: first}
	id, err := t.insert(ctx, insertClaim, values(next.columns(), row.Identity.Name, timestamp{&c.At})...)
	if err != nil {
		return err
	}
	next.id = id
	c.tally.Note(row.Identity.Name, store.Added)
	if err := c.putPublicKey(ctx, t, next, row); err != nil {
		return err
	}
	if err := c.noteIdentity(ctx, t, first.Identity); err != nil {
		return err
	}
	if queue {
		if err := c.queue(ctx, t, row); err != nil {
			return err
		}
	}
	if c.Lifeboat.Serial > 0 && len(row.Sealed) > 0 {
		// It may be known to an inventory that is lost.
		if err := c.queueDelivery(ctx, t, c.Lifeboat.Delivery(row, c.At)); err != nil {
			return err
		}
	}
	return c.noteAddress(ctx, t, &claim{}, next)
}

// putManualAddress sets or takes back what an operator says.
func (c *commissioning) putManualAddress(ctx context.Context, t *tx, a store.Address) error {
	known, err := t.claim(ctx, a.Device)
	if err != nil {
		return err
	}
	next := *known
	next.manual = sql.NullString{String: a.Address, Valid: a.Address != ""}
	if next.manual == known.manual {
		c.tally.Note(a.Device, store.Unchanged)
		return nil
	}
	c.tally.Note(a.Device, store.Updated)
	if err := t.exec(ctx, "UPDATE device SET address_manual = ? WHERE id = ?", next.manual, next.id); err != nil {
		return err
	}
	return c.noteAddress(ctx, t, known, &next)
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
		is.id, is.effective(), c.Source, flag{&is.manual.Valid}, timestamp{&c.At})
}
