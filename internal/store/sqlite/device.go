package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/store"
)

// record is a row of the table of devices.
type record struct {
	id          int64
	device      fleet.Device
	certificate fleet.Certificate // all zero for none
	open        bool              // has an open enrolment
	next        uint64            // the version of the outstanding bundle, 0 for none
}

// decisions are the columns that an enrolment decides.
func (r *record) decisions() []column {
	return []column{
		{"epoch", integerOf(&r.device.Identity.Epoch)},
		{"generation", integerOf(&r.device.Identity.Generation)},
		{"quarantined", flag{&r.device.Quarantined}},
		{"open", flag{&r.open}},
		{"cert_sha256", digest{&r.certificate.SHA256}},
		{"cert_serial", textOf(&r.certificate.Serial)},
		{"cert_subject", textOf(&r.certificate.Subject)},
		{"cert_issuer", textOf(&r.certificate.Issuer)},
		{"cert_not_before", timestamp{&r.certificate.NotBefore}},
		{"cert_not_after", timestamp{&r.certificate.NotAfter}},
		{"enrolled_at", timestamp{&r.device.EnrolledAt}},
		{"renew_at", timestamp{&r.device.RenewAt}},
		{"attempts", integerOf(&r.device.Attempts)},
		{"next_attempt", timestamp{&r.device.NextAttempt}},
		{"last_error", textOf(&r.device.LastError)},
	}
}

// columns are all columns as they are read.
func (r *record) columns() []column {
	return append([]column{
		{"id", integerOf(&r.id)},
		{"name", textOf(&r.device.Name)},
		{"public_key", blob{&r.device.PublicKey}},
		{"coalesce(address_manual, address)", textOf(&r.device.Address)},
		{"coalesce(asset, '')", textOf(&r.device.Asset)},
		{"coalesce(labels_manual, labels)", document{&r.device.Labels}},
		{"names", document{&r.device.Names}},
		{"paused", flag{&r.device.Paused}},
		{"decommissioned_at", timestamp{&r.device.Decommissioned}},
		{selectNext, integerOf(&r.next)},
	}, r.decisions()...)
}

var (
	selectDevice    = "SELECT " + nameList(new(record).columns()) + " FROM device "
	selectInService = selectDevice + "WHERE decommissioned_at IS NULL "
)

// scanner is a row, or the current one of several.
type scanner interface{ Scan(into ...any) error }

// recordReader reads rows that selectDevice returns.
type recordReader struct {
	row  record
	into []any
}

func newRecordReader() *recordReader {
	rr := &recordReader{}
	rr.into = values(rr.row.columns())
	return rr
}

func (rr *recordReader) read(row scanner) (*record, error) {
	rr.row = record{}
	if err := row.Scan(rr.into...); err != nil {
		return nil, err
	}
	r := rr.row
	r.device.Identity.Role, r.device.Identity.Name = ibc.RoleDevice, r.device.Name
	next := enrol.Delivery{Device: r.device.Name, Kind: enrol.DeliverBundle, Version: r.next}
	if id := next.Identity(); id.Compare(r.device.Identity) > 0 {
		r.device.Next = id
	}
	if r.certificate.SHA256 != [32]byte{} {
		r.device.Certificate = &r.certificate
	}
	return &r, nil
}

// Device implements enrol.Store.
func (s *Store) Device(ctx context.Context, name string) (fleet.Device, error) {
	r, err := s.record(ctx, name)
	if err != nil {
		return fleet.Device{}, err
	}
	return r.device, nil
}

func (v *view) record(ctx context.Context, name string) (*record, error) {
	statement, err := v.prepare(ctx, selectDevice+"WHERE name = ?")
	if err != nil {
		return nil, fmt.Errorf("device %s: %w", name, explain(err))
	}
	r, err := newRecordReader().read(statement.QueryRowContext(ctx, name))
	if err != nil {
		return nil, fmt.Errorf("device %s: %w", name, explain(err))
	}
	return r, nil
}

// errStopped ends a scan whose reader has had enough.
var errStopped = errors.New("stopped")

// ListDevices yields the devices that a filter selects, in the order of their
// names. A name that does not exist yields an error that wraps
// enrol.ErrNotFound, one that is decommissioned enrol.ErrDecommissioned, unless
// the filter asks for those too. While it runs the sequence holds a snapshot of the
// inventory, which keeps the log from being written back: work that takes long
// does not belong between its elements.
func (s *Store) ListDevices(ctx context.Context, f store.Filter) iter.Seq2[fleet.Device, error] {
	return func(yield func(fleet.Device, error) bool) {
		err := s.each(ctx, f, func(r *record) error {
			if !yield(r.device, nil) {
				return errStopped
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStopped) {
			yield(fleet.Device{}, fmt.Errorf("list devices: %w", explain(err)))
		}
	}
}

// each visits the devices that a filter selects, in the order of their names.
func (v *view) each(ctx context.Context, f store.Filter, visit func(*record) error) error {
	if len(f.Names) == 0 {
		query := selectInService
		if f.Decommissioned {
			query = selectDevice
		}
		return v.eachOf(ctx, query+"ORDER BY name", nil, f, visit)
	}
	names := make([]string, len(f.Names))
	for i, named := range f.Names {
		var err error
		if names[i], err = v.nameOf(ctx, named); err != nil {
			return err
		}
	}
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		r, err := v.record(ctx, name)
		if err != nil {
			return err
		}
		if !r.device.InService() && !f.Decommissioned {
			return r.outOfService()
		}
		if !r.device.HasLabels(f.Labels) {
			continue
		}
		if err := visit(r); err != nil {
			return err
		}
	}
	return nil
}

// eachOf visits the devices that a query returns, if they have the labels.
func (v *view) eachOf(ctx context.Context, query string, args []any, f store.Filter, visit func(*record) error) error {
	reader := newRecordReader()
	return v.scan(ctx, query, args, func(rows *sql.Rows) error {
		r, err := reader.read(rows)
		if err != nil || !r.device.HasLabels(f.Labels) {
			return err
		}
		return visit(r)
	})
}

// CountDevices counts what ListDevices would yield. How many are in service
// is on record.
func (s *Store) CountDevices(ctx context.Context, f store.Filter) (int, error) {
	var n int
	var err error
	if len(f.Names) == 0 && len(f.Labels) == 0 && !f.Decommissioned {
		err = s.queryRow(ctx, "SELECT devices FROM fleet", nil, &n)
	} else {
		err = s.each(ctx, f, func(*record) error { n++; return nil })
	}
	if err != nil {
		return 0, fmt.Errorf("count devices: %w", explain(err))
	}
	return n, nil
}
