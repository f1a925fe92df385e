package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/store"
	"github.com/edgeclm/edgeclm/internal/store/sqlite"
)

// BenchmarkFleet is what the command line does with 100,000 devices.
func BenchmarkFleet(b *testing.B) {
	const devices = 100_000
	path := filepath.Join(b.TempDir(), "inventory.db")
	ctx := context.Background()
	s := benchStore(b, path, devices)
	b.Run("commission-again", func(b *testing.B) {
		d := benchDelivery(devices, 1)
		for b.Loop() {
			if c, err := s.PutDevices(ctx, d); err != nil || c.Unchanged != devices {
				b.Fatal(c, err)
			}
		}
	})
	b.Run("list", func(b *testing.B) {
		for b.Loop() {
			n := 0
			for _, err := range s.ListDevices(ctx, store.Filter{}) {
				if err != nil {
					b.Fatal(err)
				}
				n++
			}
			if n != devices {
				b.Fatal(n)
			}
		}
	})
	b.Run("due-all", func(b *testing.B) {
		for b.Loop() {
			if due, err := s.DueJobs(ctx, store.Filter{}, benchEpoch, time.Hour); err != nil || len(due) != devices {
				b.Fatal(len(due), err)
			}
		}
	})
	// As it mostly is: all but ten wait for their next attempt.
	behindItsBack(b, path, "UPDATE device SET next_attempt = ? + id * 1000000 WHERE id <= ?", benchEpoch.UnixMicro(), devices-10)
	b.Run("due-ten", func(b *testing.B) {
		for b.Loop() {
			if due, err := s.DueJobs(ctx, store.Filter{}, benchEpoch, 1000*time.Hour); err != nil || len(due) != 10 {
				b.Fatal(len(due), err)
			}
		}
	})
	b.Run("next-due", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.NextDue(ctx, benchEpoch); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkOverview is what the dashboard, the alerts and the metrics ask for
// every few seconds, of 100,000 devices with certificates: if all is well, and
// if nothing is.
func BenchmarkOverview(b *testing.B) {
	const devices = 100_000
	path := filepath.Join(b.TempDir(), "inventory.db")
	s := benchStore(b, path, devices)
	behindItsBack(b, path, `UPDATE device SET cert_sha256 = randomblob(32), cert_serial = hex(randomblob(16)), cert_subject = 'CN=' || name, cert_issuer = 'CN=plant',
		cert_not_before = ?1 - 3600000000, cert_not_after = ?1 + 82800000000 + id, enrolled_at = ?1 - 3600000000, reached_at = ?1, renew_at = ?1 + 28800000000 + id * 100000`, benchEpoch.UnixMicro())
	b.Run("well", func(b *testing.B) { benchOverview(b, s, benchEpoch) })
	behindItsBack(b, path, "UPDATE device SET last_error = 'the device is unreachable: no answer came from 10.0.0.1:5684 within 20 s', attempts = 1")
	b.Run("all-fail", func(b *testing.B) { benchOverview(b, s, benchEpoch.Add(48*time.Hour)) })
}

func benchOverview(b *testing.B, s *sqlite.Store, now time.Time) {
	ctx := context.Background()
	for _, q := range []struct {
		name string
		ask  func() error
	}{
		{"census", func() error { _, err := s.Census(ctx, now, time.Hour); return err }},
		{"rows-1000", func() error { _, err := s.Rows(ctx, benchName(50_000), 1000); return err }},
		{"rows-all", func() error { _, err := s.Rows(ctx, "", 0); return err }},
		{"due", func() error { _, err := s.DueJobs(ctx, store.Filter{}, now, time.Hour); return err }},
		{"next-due", func() error { _, err := s.NextDue(ctx, now); return err }},
		{"troubles-100", func() error { _, _, err := s.Troubles(ctx, now, 100); return err }},
		{"patience", func() error { _, _, err := s.Patience(ctx, now); return err }},
		{"renewals-24", func() error { _, err := s.Renewals(ctx, now, time.Hour, 24); return err }},
		{"tallies", func() error { _, _, err := s.Tallies(ctx); return err }},
		{"list", func() error { _, err := store.Collect(s.ListDevices(ctx, store.Filter{})); return err }},
	} {
		b.Run(q.name, func(b *testing.B) {
			for b.Loop() {
				if err := q.ask(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// behindItsBack changes rows behind the store's back.
func behindItsBack(b *testing.B, path, statement string, args ...any) {
	b.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		b.Fatal(err)
	}
	_, err = db.Exec(statement, args...)
	if err := errors.Join(err, db.Close()); err != nil {
		b.Fatal(err)
	}
}
