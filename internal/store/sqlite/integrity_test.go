package sqlite

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgeclm/edgeclm/internal/store"
)

func TestExamineSound(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "inventory.db")
	s := openTest(t, path)
	putTest(t, s, "plc-1", "plc-2")
	// While the store is open, and its log is not written back.
	found, err := Examine(t.Context(), path)
	if err != nil || found.Schema != found.Known || found.Known < 5 || found.Bytes == 0 || len(found.Problems) > 0 {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestExamineFindsOrphans(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "inventory.db")
	s := openTest(t, path)
	putTest(t, s, "plc-1")
	db, err := openDB(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	for _, text := range []string{"PRAGMA foreign_keys = 0", "INSERT INTO address (device, address, source, manual) VALUES (99, 'a:1', 's', 0)"} {
		if _, err := conn.ExecContext(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	found, err := Examine(t.Context(), path)
	if err != nil || len(found.Problems) != 1 || found.Problems[0] != "a row of address refers to one of device that is not there" {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestExamineFindsDamage(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "inventory.db")
	s, err := Open(context.Background(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	putTest(t, s, "plc-1", "plc-2")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The second page and all behind it: the root pages of the tables.
	if err := os.WriteFile(path, append(data[:4096:4096], bytes.Repeat([]byte{0x5a}, len(data)-4096)...), 0o600); err != nil {
		t.Fatal(err)
	}
	if found, err := Examine(t.Context(), path); err == nil && len(found.Problems) == 0 {
		t.Errorf("damage is not found: %+v", found)
	}
	if err := os.WriteFile(path, []byte("no database at all, but long enough to look like one to somebody in a hurry ......................."), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Examine(t.Context(), path); !errors.Is(err, store.ErrForeign) {
		t.Errorf("no database: %v", err)
	}
	if _, err := Examine(t.Context(), filepath.Join(t.TempDir(), "none.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
