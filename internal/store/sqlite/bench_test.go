package sqlite_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/store"
	"github.com/edgeclm/edgeclm/internal/store/sqlite"
)

var benchEpoch = time.Date(2031, time.May, 7, 9, 30, 15, 0, time.UTC)

// benchStore opens a store on the real disk with n devices.
func benchStore(b *testing.B, path string, n int) *sqlite.Store {
	b.Helper()
	s, err := sqlite.Open(context.Background(), path, sqlite.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	if _, err := s.PutDevices(context.Background(), benchDelivery(n, 1)); err != nil {
		b.Fatal(err)
	}
	return s
}

func benchName(i int) string { return fmt.Sprintf("plc-%06d.bilbao", i) }

func benchDelivery(n int, generation uint32) store.Delivery {
	d := store.Delivery{At: benchEpoch, Source: "manifest.json", Rows: make([]store.Row, n)}
	for i := range d.Rows {
		d.Rows[i] = store.Row{
			Identity:    ibc.Identity{Role: ibc.RoleDevice, Name: benchName(i), Epoch: 1, Generation: generation},
			Address:     fmt.Sprintf("10.%d.%d.%d:5684", i>>16, i>>8&0xff, i&0xff),
			Labels:      map[string]string{"line": fmt.Sprint(i % 16), "site": "bilbao"},
			Names:       []fleet.Name{{Kind: fleet.KindCN, Value: benchName(i)}, {Kind: fleet.KindDNS, Value: benchName(i)}},
			LedgerIndex: uint64(generation)<<20 + uint64(i),
		}
	}
	return d
}

func benchLeaf(b *testing.B, serial int64) *x509.Certificate {
	b.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: benchName(int(serial))},
		NotBefore: benchEpoch, NotAfter: benchEpoch.Add(24 * time.Hour), DNSNames: []string{benchName(int(serial))},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		b.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		b.Fatal(err)
	}
	return c
}

// benchEnrol makes the three commits of one enrolment (see enrol.Runner).
func benchEnrol(ctx context.Context, s enrol.Store, n uint64, name string, leaf *x509.Certificate) error {
	d, err := s.Device(ctx, name)
	if err != nil {
		return err
	}
	e := &enrol.Enrolment{Device: name, Identity: d.Identity, CA: "plant", CreatedAt: benchEpoch, UpdatedAt: benchEpoch, Subject: []fleet.Attribute{{Type: "CN", Value: name}}}
	binary.BigEndian.PutUint64(e.ID[:], n+1)
	event := enrol.Event{At: benchEpoch, Device: name, Enrolment: e.ID, Kind: enrol.EventProgress, Message: "next", Took: time.Millisecond}
	save := func(state enrol.State, events int) error {
		c := enrol.Change{Enrolment: e, Device: &d}
		for range events {
			c.Events = append(c.Events, event)
		}
		e.State = state
		return s.Commit(ctx, c)
	}
	if err := save(enrol.Submitted, 2); err != nil {
		return err
	}
	e.Certificate, e.Chain = leaf.Raw, [][]byte{leaf.Raw}
	if err := save(enrol.PreVerified, 2); err != nil {
		return err
	}
	described := enrol.Describe(leaf)
	e.Receipt = enrol.Receipt{Identity: d.Identity, Algorithm: "ecdsa-sha256", Possession: make([]byte, 72), Statement: make([]byte, 96)}
	d.Certificate, d.EnrolledAt, d.RenewAt = &described, benchEpoch, benchEpoch.Add(9*time.Hour)
	return save(enrol.Completed, 4)
}

// BenchmarkFsync is the floor of BenchmarkCommit: append 4 KiB and sync.
func BenchmarkFsync(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "log"))
	if err != nil {
		b.Fatal(err)
	}
	page := make([]byte, 4096)
	for b.Loop() {
		if _, err := f.Write(page); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "syncs/s")
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkCommit makes the commits of whole enrolments, of so many devices at
// a time.
func BenchmarkCommit(b *testing.B) {
	for _, concurrency := range []int{1, 8, 64} {
		b.Run(fmt.Sprint(concurrency), func(b *testing.B) {
			const devices = 1000
			path := filepath.Join(b.TempDir(), "inventory.db")
			s := benchStore(b, path, devices)
			leaves := make([]*x509.Certificate, 64)
			for i := range leaves {
				leaves[i] = benchLeaf(b, int64(i))
			}
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for range concurrency {
				wg.Go(func() {
					for {
						n := next.Add(1) - 1
						if n >= int64(b.N) {
							return
						}
						if err := benchEnrol(context.Background(), s, uint64(n), benchName(int(n)%devices), leaves[n%64]); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(3*b.N)/b.Elapsed().Seconds(), "commits/s")
		})
	}
}

// BenchmarkDevice reads one row.
func BenchmarkDevice(b *testing.B) {
	s := benchStore(b, filepath.Join(b.TempDir(), "inventory.db"), 1000)
	for b.Loop() {
		if _, err := s.Device(context.Background(), benchName(500)); err != nil {
			b.Fatal(err)
		}
	}
}
