package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/store"
)

// History returns all that is known about a device, by its name or asset, with at most so many of
// its last events (0: all).
func (s *Store) History(ctx context.Context, device string, events int) (store.History, error) {
	var h store.History
	err := s.snapshot(ctx, func(v *view) (err error) {
		h, err = v.history(ctx, device, events)
		return err
	})
	if err != nil {
		return store.History{}, fmt.Errorf("history of %s: %w", device, explain(err))
	}
	return h, nil
}

func (v *view) history(ctx context.Context, device string, events int) (h store.History, err error) {
	if device, err = v.nameOf(ctx, device); err != nil {
		return h, err
	}
	r, err := v.record(ctx, device)
	if err != nil {
		return h, err
	}
	h.Device = r.device
	err = v.queryRow(ctx, "SELECT commissioned_at, ledger_index FROM device WHERE id = ?", []any{r.id},
		timestamp{&h.CommissionedAt}, integerOf(&h.LedgerIndex))
	if err != nil {
		return h, err
	}
	if h.Addresses, err = v.addresses(ctx, r.id); err != nil {
		return h, err
	}
	if h.Assets, err = v.assets(ctx, r.id); err != nil {
		return h, err
	}
	if h.Enrolments, err = v.enrolments(ctx, selectEnrolment+"WHERE device = ? ORDER BY enrolment.seq", r.id); err != nil {
		return h, err
	}
	if h.Certificates, err = v.certificates(ctx, h.Enrolments, selectCertificates+
		"WHERE enrolment IN (SELECT id FROM enrolment WHERE device = ?) ORDER BY id", r.id); err != nil {
		return h, err
	}
	if h.Deliveries, err = v.deliveries(ctx, r.id, device); err != nil {
		return h, err
	}
	h.Events, err = v.events(ctx, r.id, device, events)
	return h, err
}

func (v *view) addresses(ctx context.Context, device int64) ([]store.AddressEntry, error) {
	var out []store.AddressEntry
	err := v.scan(ctx, "SELECT address, source, manual, since FROM address WHERE device = ? ORDER BY id", []any{device}, func(rows *sql.Rows) error {
		var a store.AddressEntry
		err := rows.Scan(textOf(&a.Address), textOf(&a.Source), flag{&a.Manual}, timestamp{&a.Since})
		out = append(out, a)
		return err
	})
	return out, err
}

var selectEvents = "SELECT " + nameList(eventColumns(&enrol.Event{})) + ", enrolment FROM event WHERE device = ? ORDER BY id DESC LIMIT ?"

func (v *view) events(ctx context.Context, id int64, device string, limit int) ([]enrol.Event, error) {
	if limit <= 0 {
		limit = math.MaxInt
	}
	var out []enrol.Event
	err := v.scan(ctx, selectEvents, []any{id, limit}, func(rows *sql.Rows) error {
		e := enrol.Event{Device: device}
		var enrolment []byte
		if err := rows.Scan(append(values(eventColumns(&e)), &enrolment)...); err != nil {
			return err
		}
		copy(e.Enrolment[:], enrolment)
		out = append(out, e)
		return nil
	})
	slices.Reverse(out)
	return out, err
}

var selectCertificates = "SELECT id, enrolment, " + nameList(new(certificate).columns()) + " FROM certificate "

// certificates describes those that a query that begins with
// selectCertificates finds. They were issued for one of these enrolments, all
// of one device.
func (v *view) certificates(ctx context.Context, enrolments []*enrol.Enrolment, query string, args ...any) ([]store.Certificate, error) {
	if len(enrolments) == 0 {
		return nil, nil
	}
	tenures, err := v.tenures(ctx, enrolments[0].Device)
	if err != nil {
		return nil, err
	}
	owners := map[enrol.ID]*enrol.Enrolment{}
	for _, e := range enrolments {
		owners[e.ID] = e
	}
	var out []store.Certificate
	err = v.scan(ctx, query, args, func(rows *sql.Rows) error {
		var (
			id     int64
			owner  []byte
			stored certificate
		)
		if err := rows.Scan(append([]any{&id, &owner}, values(stored.columns())...)...); err != nil {
			return err
		}
		c := store.Certificate{
			Certificate: stored.Certificate, Device: enrolments[0].Device, Enrolment: enrol.ID(owner), DER: stored.der, Tenures: tenures[id],
		}
		// An enrolment may have got another certificate since.
		if e := owners[c.Enrolment]; e != nil && bytes.Equal(e.Certificate, c.DER) {
			c.Chain, c.Receipt = e.Chain, e.Receipt
		}
		if n := len(c.Tenures); n > 0 {
			c.Active = c.Tenures[n-1].Until.IsZero()
		}
		out = append(out, c)
		return nil
	})
	return out, err
}

// tenures returns when each certificate, by its row, was the device's active
// one.
func (v *view) tenures(ctx context.Context, device string) (map[int64][]store.Tenure, error) {
	var (
		out  = map[int64][]store.Tenure{}
		last int64 // the row of the certificate before, 0 for none
	)
	err := v.scan(ctx, `SELECT coalesce(certificate, 0), since FROM tenure
		WHERE device = (SELECT id FROM device WHERE name = ?) ORDER BY id`, []any{device}, func(rows *sql.Rows) error {
		var (
			id    int64
			since time.Time
		)
		if err := rows.Scan(&id, timestamp{&since}); err != nil {
			return err
		}
		if before := out[last]; len(before) > 0 {
			before[len(before)-1].Until = since
		}
		if last = id; id != 0 {
			out[id] = append(out[id], store.Tenure{From: since})
		}
		return nil
	})
	return out, err
}

// CertificateByHash returns a certificate on record, or an error that wraps
// enrol.ErrNotFound.
func (s *Store) CertificateByHash(ctx context.Context, hash [32]byte) (store.Certificate, error) {
	var found []store.Certificate
	err := s.snapshot(ctx, func(v *view) error {
		owner, err := v.enrolments(ctx, selectEnrolment+"WHERE enrolment.id = (SELECT enrolment FROM certificate WHERE sha256 = ?)", hash[:])
		if err != nil {
			return err
		}
		found, err = v.certificates(ctx, owner, selectCertificates+"WHERE sha256 = ?", hash[:])
		return err
	})
	if err == nil && len(found) == 0 {
		err = enrol.ErrNotFound
	}
	if err != nil {
		return store.Certificate{}, fmt.Errorf("certificate %x: %w", hash, explain(err))
	}
	return found[0], nil
}
