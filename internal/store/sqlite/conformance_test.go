package sqlite_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgeclm/edgeclm/internal/store/sqlite"
	"github.com/edgeclm/edgeclm/internal/store/storetest"
)

// place makes a directory for one database, in memory where there is a file
// system for that: the suite is about what is stored, not about the disk.
func place[S storetest.Store](t testing.TB) storetest.Place[S] {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "edgeclm-store-")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return func(t testing.TB) S {
		t.Helper()
		s, err := sqlite.Open(context.Background(), filepath.Join(dir, "inventory.db"), sqlite.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return any(s).(S)
	}
}

func TestStore(t *testing.T)     { storetest.Run(t, place[storetest.Store]) }
func TestInventory(t *testing.T) { storetest.RunInventory(t, place[storetest.Inventory]) }
func TestOverview(t *testing.T)  { storetest.RunOverview(t, place[storetest.Overview]) }
