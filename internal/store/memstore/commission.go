package memstore

import (
	"context"
	"fmt"
	"maps"
	"slices"
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
	devices := maps.Clone(s.disk.devices)
	for _, row := range delivery.Rows {
		if err := row.Validate(); err != nil {
			return store.Counts{}, fmt.Errorf("commission devices: %w", err)
		}
		next, outcome := merge(devices[row.Identity.Name], row)
		devices[row.Identity.Name] = next
		tally.Note(row.Identity.Name, outcome)
	}
	for _, a := range delivery.Addresses {
		known := devices[a.Device]
		if known == nil {
			return store.Counts{}, fmt.Errorf("commission devices: device %s: %w", a.Device, enrol.ErrNotFound)
		}
		outcome := store.Unchanged
		if known.manual != a.Address {
			outcome = store.Updated
		}
		tally.Note(a.Device, outcome)
		next := *known
		next.manual = a.Address
		devices[a.Device] = next.refresh()
	}
	s.disk.devices = devices
	return tally.Counts(), nil
}

func merge(known *device, row store.Row) (*device, store.Outcome) {
	row.Labels, row.Names = maps.Clone(row.Labels), slices.Clone(row.Names)
	next, outcome := &device{row: row}, store.Added
	if known != nil {
		*next = *known
		next.row, outcome = known.row.Merge(row)
	}
	return next.refresh(), outcome
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
