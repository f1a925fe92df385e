package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"

	driver "modernc.org/sqlite"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/store"
)

// openFails opens a file that must be refused, and holds that it is left as it
// was, with nothing beside it.
func openFails(t *testing.T, path string, want error) error {
	t.Helper()
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(context.Background(), path, Options{})
	if err == nil {
		t.Fatal(s.Close())
	}
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
	after, readErr := os.ReadFile(path)
	if readErr != nil || !bytes.Equal(before, after) {
		t.Errorf("the file has changed, %v", readErr)
	}
	entries, readErr := os.ReadDir(filepath.Dir(path))
	if readErr != nil || len(entries) != 1 {
		t.Errorf("beside it: %v, %v", entries, readErr)
	}
	return err
}

// makeDatabase makes a database with a script, in the journal mode that SQLite
// has by default.
func makeDatabase(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "inventory.db")
	if err := secureFile(path, false); err != nil {
		t.Fatal(err)
	}
	db, err := openDB(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(script); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOpenLaterVersion(t *testing.T) {
	path := makeDatabase(t, fmt.Sprintf("CREATE TABLE device (x); PRAGMA application_id = %d; PRAGMA user_version = 99", applicationID))
	err := openFails(t, path, store.ErrVersion)
	if !strings.Contains(err.Error(), "99") || !strings.Contains(err.Error(), path) {
		t.Errorf("the message %q does not say what is wrong where", err)
	}
}

func TestOpenForeign(t *testing.T) {
	for name, script := range map[string]string{
		"tables":         "CREATE TABLE bookmarks (x)",
		"application ID": "CREATE TABLE bookmarks (x); PRAGMA application_id = 7",
		"version":        "CREATE TABLE bookmarks (x); DROP TABLE bookmarks; PRAGMA user_version = 1",
	} {
		t.Run(name, func(t *testing.T) { openFails(t, makeDatabase(t, script), store.ErrForeign) })
	}
	for name, content := range map[string]string{
		"text": "name,address\nplc-1,10.0.0.1\n", "long": strings.Repeat("x", 1<<16), "header alone": "SQLite format 3\x00", "nul": strings.Repeat("\x00", 4096),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "inventory.db")
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			openFails(t, path, store.ErrForeign)
		})
	}
	t.Run("directory", func(t *testing.T) {
		_, err := Open(context.Background(), t.TempDir(), Options{})
		if !errors.Is(err, store.ErrForeign) {
			t.Errorf("error %v", err)
		}
	})
}

func TestOpenMissing(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	_, err := Open(ctx, filepath.Join(dir, "inventory.db"), Options{MustExist: true})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a database that must exist: %v", err)
	}
	_, err = Open(ctx, filepath.Join(dir, "none", "inventory.db"), Options{})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that does not exist: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("it left %v, %v", entries, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := Open(ctx, filepath.Join(dir, "inventory.db"), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled context: %v", err)
	}
}

// TestOpenEmpty: a crash may leave a file without content.
func TestOpenEmpty(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inventory.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	putTest(t, openTest(t, path), "plc-1")
}

// TestOpenOddPath: nothing in a path is taken for an option of the driver.
func TestOpenOddPath(t *testing.T) {
	for _, name := range []string{"a b", "a?mode=ro", "a#b", "a%20b", "a&b=c", "ä'\";"} {
		dir := filepath.Join(t.TempDir(), name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		s := openTest(t, filepath.Join(dir, name))
		putTest(t, s, "plc-1")
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestModes(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	dir := t.TempDir()
	path := filepath.Join(dir, "inventory.db")
	s := openTest(t, path)
	putTest(t, s, "plc-1")
	seen := 0
	for _, name := range []string{"inventory.db", "inventory.db-wal", "inventory.db-shm", "leases.lock"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		seen++
		if info.Mode() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != seen {
		t.Errorf("there are other files: %v, %v", entries, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path + "-wal"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("closing left the log behind: %v", err)
	}

	// What others could read is tightened.
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	putTest(t, openTest(t, path), "plc-1")
	for _, name := range []string{"inventory.db", "inventory.db-wal"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

// TestPragmas holds what durability and secrecy rest on.
func TestPragmas(t *testing.T) {
	ctx := context.Background()
	s := openTest(t, filepath.Join(t.TempDir(), "inventory.db"))
	reader, err := s.readDB.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	scripts, err := loadMigrations(migrationFiles)
	if err != nil {
		t.Fatal(err)
	}
	latest := len(scripts)
	for _, c := range []struct {
		pragma       string
		writer, read int
	}{
		{"synchronous", 2, 2}, {"foreign_keys", 1, 1}, {"secure_delete", 1, 1}, {"query_only", 0, 1}, {"busy_timeout", 10000, 10000},
		{"user_version", latest, latest}, {"application_id", applicationID, applicationID}, {"trusted_schema", 0, 0}, {"fullfsync", 0, 0},
	} {
		for i, conn := range []*sql.Conn{s.writer.tx.conn, reader} {
			var got int
			if err := conn.QueryRowContext(ctx, "PRAGMA "+c.pragma).Scan(&got); err != nil {
				t.Fatal(err)
			}
			if want := []int{c.writer, c.read}[i]; got != want {
				t.Errorf("%s is %d, want %d", c.pragma, got, want)
			}
		}
	}
	if !driver.FdatasyncEnabled() {
		t.Error("SQLite syncs with fsync")
	}
	var mode string
	if err := reader.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode); err != nil || mode != "wal" {
		t.Errorf("journal mode %s, %v", mode, err)
	}
}

func TestStrictTables(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "inventory.db"))
	var loose int
	err := s.readDB.QueryRow("SELECT count(*) FROM pragma_table_list WHERE type = 'table' AND schema = 'main' AND name NOT LIKE 'sqlite_%' AND NOT strict").Scan(&loose)
	if err != nil || loose != 0 {
		t.Errorf("%d tables are not strict, %v", loose, err)
	}
}

func TestLoadMigrations(t *testing.T) {
	scripts, err := loadMigrations(migrationFiles)
	if err != nil || len(scripts) == 0 {
		t.Fatalf("%d scripts, %v", len(scripts), err)
	}
	for name, names := range map[string][]string{
		"a gap":      {"0001_a.sql", "0003_b.sql"},
		"twice":      {"0001_a.sql", "0001_b.sql"},
		"no number":  {"0001_a.sql", "b.sql"},
		"not from 1": {"0002_a.sql"},
	} {
		files := fstest.MapFS{}
		for _, n := range names {
			files["migrations/"+n] = &fstest.MapFile{}
		}
		if _, err := loadMigrations(files); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestMigrate: a later release finds what an earlier one wrote; if its script
// fails, the database is what it was.
func TestMigrate(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "inventory.db")
	s := openTest(t, path)
	putTest(t, s, "plc-1")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	scripts, err := loadMigrations(migrationFiles)
	if err != nil {
		t.Fatal(err)
	}
	db, err := openDB(path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	conn, err := db.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	current := len(scripts)
	later := append(scripts, "CREATE TABLE novelty (x) STRICT; INSERT INTO missing VALUES (1)")
	if err := migrateConn(ctx, conn, later); err == nil {
		t.Fatal("a failing script was accepted")
	}
	check := func(wantVersion, wantTables int) {
		t.Helper()
		var tables, devices int
		version, err := schemaVersion(ctx, conn)
		if err != nil || version != wantVersion {
			t.Errorf("version %d, %v, want %d", version, err, wantVersion)
		}
		err = conn.QueryRowContext(ctx, "SELECT (SELECT count(*) FROM sqlite_schema WHERE name = 'novelty'), (SELECT count(*) FROM device)").Scan(&tables, &devices)
		if err != nil || tables != wantTables || devices != 1 {
			t.Errorf("%d tables, %d devices, %v", tables, devices, err)
		}
	}
	check(current, 0)
	later[current] = "CREATE TABLE novelty (x INTEGER) STRICT"
	for range 2 {
		if err := migrateConn(ctx, conn, later); err != nil {
			t.Fatal(err)
		}
		check(current+1, 1)
	}
	if err := migrateConn(ctx, conn, scripts); !errors.Is(err, store.ErrVersion) {
		t.Errorf("the earlier release: %v", err)
	}
}

// TestOpenEarlier: an inventory that the first release wrote is taken over as it
// stands, and can queue deliveries.
func TestOpenEarlier(t *testing.T) {
	ctx := context.Background()
	scripts, err := loadMigrations(migrationFiles)
	if err != nil {
		t.Fatal(err)
	}
	path := makeDatabase(t, scripts[0]+fmt.Sprintf(`;
		INSERT INTO device (name, epoch, generation, ledger_index, address, labels, names) VALUES ('plc-1', 1, 4, 9, 'h:1', '{"a":"b"}', '[]');
		PRAGMA application_id = %d; PRAGMA user_version = 1`, applicationID))
	s := openTest(t, path)
	d, err := s.Device(ctx, "plc-1")
	if err != nil || d.Identity.Generation != 4 || d.Labels["a"] != "b" || d.Next.Name != "" {
		t.Errorf("%+v, %v", d, err)
	}
	id := d.Identity
	id.Generation = 5
	n, err := s.QueueDeliveries(ctx, []enrol.Delivery{enrol.NewDelivery("plc-1", enrol.DeliverBundle, enrol.BundleVersion(id), []byte("sealed"), d.EnrolledAt)})
	if err != nil || n != 1 {
		t.Errorf("queued %d, %v", n, err)
	}
	if d, err = s.Device(ctx, "plc-1"); err != nil || d.Next != id {
		t.Errorf("%+v, %v", d, err)
	}
}

// TestOpenTogether: many processes may make the same database.
func TestOpenTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inventory.db")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			s, err := Open(context.Background(), path, Options{})
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	putTest(t, openTest(t, path), "plc-1")
}
