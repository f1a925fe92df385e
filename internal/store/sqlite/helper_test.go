package sqlite

import (
	"context"
	"testing"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/store"
)

func openTest(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(context.Background(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func putTest(t testing.TB, s *Store, names ...string) {
	t.Helper()
	d := store.Delivery{Source: "test"}
	for i, name := range names {
		id := ibc.Identity{Role: ibc.RoleDevice, Name: name, Epoch: 1, Generation: 1}
		d.Rows = append(d.Rows, store.Row{Identity: id, LedgerIndex: uint64(i + 1)})
	}
	if _, err := s.PutDevices(context.Background(), d); err != nil {
		t.Fatal(err)
	}
}

func commitTest(t testing.TB, s *Store, e *enrol.Enrolment) {
	t.Helper()
	if err := s.Commit(context.Background(), enrol.Change{Enrolment: e}); err != nil {
		t.Fatal(err)
	}
}

// checkIntegrity has SQLite look at every page, and for rows without parents.
func checkIntegrity(t testing.TB, s *Store) {
	t.Helper()
	var verdict string
	if err := s.readDB.QueryRow("PRAGMA integrity_check").Scan(&verdict); err != nil || verdict != "ok" {
		t.Errorf("integrity: %s, %v", verdict, err)
	}
	var orphans int
	if err := s.readDB.QueryRow("SELECT count(*) FROM pragma_foreign_key_check").Scan(&orphans); err != nil || orphans != 0 {
		t.Errorf("%d orphans, %v", orphans, err)
	}
}
