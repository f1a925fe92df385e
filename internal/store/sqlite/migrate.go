package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/edgeclm/edgeclm/internal/store"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// applicationID marks our databases (sqlite.org/pragma.html#pragma_application_id):
// "eCLM".
const applicationID = 0x65434c4d

// loadMigrations returns the scripts in order; the n-th (from 1) leads to
// schema version n and begins with that number in its name.
func loadMigrations(files fs.FS) ([]string, error) {
	names, err := fs.Glob(files, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	scripts := make([]string, len(names))
	for i, name := range names {
		number, _, _ := strings.Cut(strings.TrimPrefix(name, "migrations/"), "_")
		if n, err := strconv.Atoi(number); err != nil || n != i+1 {
			return nil, fmt.Errorf("migration %s is not number %d", name, i+1)
		}
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		scripts[i] = string(text)
	}
	return scripts, nil
}

// migrate brings the database to the latest version, in one transaction. It
// looks before it writes: a foreign or later database is left as it is.
func migrate(ctx context.Context, conn *sql.Conn) error {
	scripts, err := loadMigrations(migrationFiles)
	if err != nil {
		return err
	}
	return explain(migrateConn(ctx, conn, scripts))
}

func migrateConn(ctx context.Context, conn *sql.Conn, scripts []string) error {
	version, err := schemaVersion(ctx, conn)
	if err != nil {
		return err
	}
	if version > len(scripts) {
		return fmt.Errorf("%w: its schema has version %d, this release knows up to %d", store.ErrVersion, version, len(scripts))
	}
	if err := logAhead(ctx, conn); err != nil {
		return err
	}
	if version == len(scripts) {
		return nil
	}
	if _, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	err = applyMigrations(ctx, conn, scripts)
	if err == nil {
		_, err = conn.ExecContext(ctx, "COMMIT")
	}
	if err != nil {
		_, rollbackErr := conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK")
		return errors.Join(err, rollbackErr)
	}
	return nil
}

// logAhead switches to the write-ahead log, which the database then keeps. It
// is the one lock for which SQLite does not wait by itself, so two processes
// that make a database together meet here.
func logAhead(ctx context.Context, conn *sql.Conn) error {
	var mode string
	for tries := busyTimeout / busyWait; ; tries-- {
		err := conn.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode)
		if err == nil {
			break
		}
		if !isCode(err, sqlite3.SQLITE_BUSY) || tries == 0 {
			return fmt.Errorf("switch to write-ahead logging: %w", err)
		}
		select {
		case <-time.After(busyWait):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if mode != "wal" {
		return fmt.Errorf("the file system does not support write-ahead logging (journal mode %s)", mode)
	}
	return nil
}

// applyMigrations runs inside a transaction that has the write lock, so that
// of two processes one finds the work done.
func applyMigrations(ctx context.Context, conn *sql.Conn, scripts []string) error {
	version, err := schemaVersion(ctx, conn)
	if err != nil {
		return err
	}
	for n := version + 1; n <= len(scripts); n++ {
		if _, err := conn.ExecContext(ctx, scripts[n-1]); err != nil {
			return fmt.Errorf("migrate to schema version %d: %w", n, err)
		}
		if _, err := conn.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", n)); err != nil {
			return fmt.Errorf("migrate to schema version %d: %w", n, err)
		}
	}
	_, err = conn.ExecContext(ctx, fmt.Sprintf("PRAGMA application_id = %d", applicationID))
	return err
}

// schemaVersion returns 0 for an empty database, and an error that wraps
// store.ErrForeign for one that somebody else made.
func schemaVersion(ctx context.Context, conn *sql.Conn) (int, error) {
	var application, version, objects int
	err := conn.QueryRowContext(ctx, `SELECT
		(SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version),
		(SELECT count(*) FROM sqlite_schema)`).Scan(&application, &version, &objects)
	if err != nil {
		return 0, err
	}
	if application == applicationID || application == 0 && version == 0 && objects == 0 {
		return version, nil
	}
	return 0, fmt.Errorf("%w: its application ID is %#x", store.ErrForeign, application)
}
