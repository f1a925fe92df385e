package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/store"
)

// History returns all that is known about a device, with at most so many of
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
	if h.Enrolments, err = v.enrolments(ctx, selectEnrolment+"WHERE device = ? ORDER BY enrolment.seq", r.id); err != nil {
		return h, err
	}
	if h.Certificates, err = v.certificates(ctx, h.Enrolments); err != nil {
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

// certificates describes those of enrolments of one device, each certificate
// once, under the first enrolment that has it.
func (v *view) certificates(ctx context.Context, enrolments []*enrol.Enrolment) ([]store.Certificate, error) {
	var (
		out     []store.Certificate
		tenures map[int64][]store.Tenure
		seen    = map[string]bool{}
	)
	for _, e := range enrolments {
		if len(e.Certificate) == 0 || seen[string(e.Certificate)] {
			continue
		}
		seen[string(e.Certificate)] = true
		if tenures == nil {
			var err error
			if tenures, err = v.tenures(ctx, e.Device); err != nil {
				return nil, err
			}
		}
		id, stored, err := v.certificate(ctx, e.ID)
		if err != nil {
			return nil, err
		}
		c := store.Certificate{
			Certificate: stored.Certificate, Device: e.Device, Enrolment: e.ID,
			DER: stored.der, Chain: e.Chain, Receipt: e.Receipt, Tenures: tenures[id],
		}
		if n := len(c.Tenures); n > 0 {
			c.Active = c.Tenures[n-1].Until.IsZero()
		}
		out = append(out, c)
	}
	return out, nil
}

var selectCertificate = "SELECT id, " + nameList(new(certificate).columns()) +
	" FROM certificate WHERE id = (SELECT certificate FROM enrolment WHERE id = ?)"

// certificate returns the row of the certificate that an enrolment has.
func (v *view) certificate(ctx context.Context, e enrol.ID) (id int64, c certificate, err error) {
	err = v.queryRow(ctx, selectCertificate, []any{e[:]}, append([]any{&id}, values(c.columns())...)...)
	return id, c, err
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
		e, err := v.enrolments(ctx, selectEnrolment+`WHERE certificate = (SELECT id FROM certificate WHERE sha256 = ?)
			ORDER BY enrolment.seq LIMIT 1`, hash[:])
		if err != nil {
			return err
		}
		found, err = v.certificates(ctx, e)
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
