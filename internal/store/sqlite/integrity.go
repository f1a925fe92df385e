package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
)

// maxProblems bounds how many problems Examine lists.
const maxProblems = 10

// Integrity is what Examine finds.
type Integrity struct {
	Schema   int      // the version of the database's schema
	Known    int      // the latest one that this release knows
	Problems []string // in SQLite's words, the first ten; none: it is sound
	Bytes    int64    // of the database, without its log
	Free     int64    // of these that hold nothing
}

// Examine checks the database at path without changing it: its structure
// (sqlite.org/pragma.html#pragma_quick_check) and the references between its
// tables. It reads all of it. Errors wrap store.ErrForeign or what SQLite or
// the file system said.
func Examine(ctx context.Context, path string) (Integrity, error) {
	found, err := examine(ctx, path)
	if err != nil {
		return Integrity{}, fmt.Errorf("examine inventory %s: %w", path, explain(err))
	}
	return found, nil
}

func examine(ctx context.Context, path string) (found Integrity, err error) {
	if _, err := os.Stat(path); err != nil {
		return found, err
	}
	scripts, err := loadMigrations(migrationFiles)
	if err != nil {
		return found, err
	}
	found.Known = len(scripts)
	db, err := openReadOnly(path, fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()), "cell_size_check(1)")
	if err != nil {
		return found, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	conn, err := db.Conn(ctx)
	if err != nil {
		return found, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if found.Schema, err = schemaVersion(ctx, conn); err != nil {
		return found, err
	}
	var pages, free, size int64
	err = conn.QueryRowContext(ctx, `SELECT (SELECT page_count FROM pragma_page_count),
		(SELECT freelist_count FROM pragma_freelist_count), (SELECT page_size FROM pragma_page_size)`).Scan(&pages, &free, &size)
	if err != nil {
		return found, err
	}
	found.Bytes, found.Free = pages*size, free*size
	found.Problems, err = problems(ctx, conn)
	return found, err
}

func problems(ctx context.Context, conn *sql.Conn) ([]string, error) {
	var out []string
	for _, check := range []string{
		"SELECT quick_check FROM pragma_quick_check WHERE quick_check <> 'ok'",
		`SELECT 'a row of ' || "table" || ' refers to one of ' || parent || ' that is not there' FROM pragma_foreign_key_check LIMIT 10`,
	} {
		rows, err := conn.QueryContext(ctx, check)
		if err != nil {
			return out, err
		}
		for rows.Next() && len(out) < maxProblems {
			var text string
			if err := rows.Scan(&text); err != nil {
				return out, errors.Join(err, rows.Close())
			}
			out = append(out, text)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return out, err
		}
	}
	return out, nil
}
