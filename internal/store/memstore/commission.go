package memstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/store"
)

// PutDevices stores a delivery, or nothing of it, as sqlite.Store does.
func (s *Store) PutDevices(ctx context.Context, delivery store.Delivery) (store.Counts, error) {
	if err := s.cut(ctx, false); err != nil {
		return store.Counts{}, err
	}
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	var tally store.Tally
	before := s.disk.content
	s.disk.devices = maps.Clone(s.disk.devices)
	if err := s.disk.put(delivery, &tally); err != nil {
		s.disk.content = before
		return store.Counts{}, fmt.Errorf("commission devices: %w", err)
	}
	return tally.Counts(), nil
}

// put replaces rows, and changes none.
func (d *Disk) put(delivery store.Delivery, tally *store.Tally) error {
	for _, row := range delivery.Rows {
		if err := row.Validate(); err != nil {
			return err
		}
		if err := d.putRow(delivery, row, tally); err != nil {
			return err
		}
	}
	for _, a := range delivery.Addresses {
		known := d.devices[a.Device]
		if known == nil {
			return fmt.Errorf("device %s: %w", a.Device, enrol.ErrNotFound)
		}
		outcome := store.Unchanged
		if known.manual != a.Address {
			outcome = store.Updated
		}
		tally.Note(a.Device, outcome)
		next := *known
		next.manual = a.Address
		d.devices[a.Device] = next.refresh()
	}
	return bind(d.devices, delivery.Assets, tally)
}

// bind binds assets to devices; all of them are set free first.
func bind(devices map[string]*device, assets []store.Asset, tally *store.Tally) error {
	was := map[string]string{}
	for _, a := range assets {
		if err := a.Validate(); err != nil {
			return err
		}
		known := devices[a.Device]
		if known == nil {
			return fmt.Errorf("device %s: %w", a.Device, enrol.ErrNotFound)
		}
		was[a.Device] = known.Asset
		next := *known
		next.Asset = ""
		devices[a.Device] = &next
	}
	for _, a := range assets {
		for name, other := range devices {
			if a.Asset != "" && name != a.Device && (name == a.Asset || strings.EqualFold(other.Asset, a.Asset)) {
				return fmt.Errorf("%w: %s cannot be %q, which is %s", store.ErrInvalid, a.Device, a.Asset, name)
			}
		}
		devices[a.Device].Asset = a.Asset
		outcome := store.Unchanged
		if was[a.Device] != a.Asset {
			outcome = store.Updated
		}
		tally.Note(a.Device, outcome)
	}
	return nil
}

func (d *Disk) putRow(delivery store.Delivery, row store.Row, tally *store.Tally) error {
	name := row.Identity.Name
	row.Labels, row.Names = maps.Clone(row.Labels), slices.Clone(row.Names)
	known := d.devices[name]
	if known == nil {
		first, queue := delivery.Begin(row)
		d.devices[name] = (&device{row: first}).refresh()
		tally.Note(name, store.Added)
		if queue {
			if err := d.queueRow(delivery, row, tally); err != nil {
				return err
			}
		}
		if delivery.Lifeboat.Serial > 0 && len(row.Sealed) > 0 {
			return d.queueOne(delivery.Lifeboat.Delivery(row, delivery.At), tally)
		}
		return nil
	}
	next := *known
	if delivery.Lifeboat.Serial > 0 && !d.aboard(name, delivery.Lifeboat.Serial) {
		d.deliveries = slices.DeleteFunc(slices.Clone(d.deliveries), func(k enrol.Delivery) bool { return k.Device == name })
		merged, queue := delivery.Lifeboat.Board(known.row, row)
		next.row = merged
		d.devices[name] = next.refresh()
		tally.Note(name, store.Updated)
		if queue {
			return d.queueOne(delivery.Lifeboat.Delivery(row, delivery.At), tally)
		}
		return nil
	}
	merged, queue, outcome := delivery.Receive(known.row, d.next(known), row)
	if queue {
		if err := d.queueRow(delivery, row, tally); err != nil {
			return err
		}
	}
	next.row = merged
	d.devices[name] = next.refresh()
	tally.Note(name, outcome)
	return nil
}

// queueRow queues a row's bundle.
func (d *Disk) queueRow(delivery store.Delivery, row store.Row, tally *store.Tally) error {
	name := row.Identity.Name
	return d.queueOne(enrol.NewDelivery(name, enrol.DeliverBundle, enrol.BundleVersion(row.Identity), row.Sealed, delivery.At), tally)
}

func (d *Disk) queueOne(delivery enrol.Delivery, tally *store.Tally) error {
	queued, err := d.queue([]enrol.Delivery{delivery})
	if err != nil {
		return fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	if queued > 0 {
		tally.NoteQueued(delivery.Device)
	}
	return nil
}

// aboard reports whether a lifeboat waits for a device, or was delivered.
func (d *Disk) aboard(name string, serial uint64) bool {
	return slices.ContainsFunc(d.deliveries, func(k enrol.Delivery) bool {
		return k.Device == name && k.Kind == enrol.DeliverLifeboat && k.Version >= serial
	})
}

// Aboard returns the devices for which a lifeboat of at least this serial number
// waits, or was delivered.
func (s *Store) Aboard(_ context.Context, serial uint64) (map[string]bool, error) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	out := map[string]bool{}
	for name := range s.disk.devices {
		if s.disk.aboard(name, serial) {
			out[name] = true
		}
	}
	return out, nil
}

// refresh makes the device's row say what was said about it.
func (d *device) refresh() *device {
	d.Name, d.Identity, d.Labels, d.Names = d.row.Identity.Name, d.row.Identity, d.row.Labels, d.row.Names
	d.Address = d.row.Address
	if d.manual != "" {
		d.Address = d.manual
	}
	return d
}

// micro is the precision that every store keeps.
func micro(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.UnixMicro(t.UnixMicro()).UTC()
}

func cloneDevice(d fleet.Device) fleet.Device {
	d.Labels, d.Names = maps.Clone(d.Labels), slices.Clone(d.Names)
	if d.Certificate != nil {
		c := *d.Certificate
		c.NotBefore, c.NotAfter = micro(c.NotBefore), micro(c.NotAfter)
		d.Certificate = &c
	}
	d.EnrolledAt, d.RenewAt, d.NextAttempt = micro(d.EnrolledAt), micro(d.RenewAt), micro(d.NextAttempt)
	return d
}

func cloneEnrolment(e enrol.Enrolment) enrol.Enrolment {
	e.Subject, e.SANs = slices.Clone(e.Subject), slices.Clone(e.SANs)
	e.KeyUsage, e.ExtKeyUsage = slices.Clone(e.KeyUsage), slices.Clone(e.ExtKeyUsage)
	e.Certificate, e.Chain = slices.Clone(e.Certificate), slices.Clone(e.Chain)
	for i := range e.Chain {
		e.Chain[i] = slices.Clone(e.Chain[i])
	}
	e.Receipt.Possession, e.Receipt.Statement = slices.Clone(e.Receipt.Possession), slices.Clone(e.Receipt.Statement)
	for _, t := range []*time.Time{&e.SubmittedAt, &e.IssuedAt, &e.CADate, &e.NextTry, &e.CreatedAt, &e.UpdatedAt} {
		*t = micro(*t)
	}
	return e
}
