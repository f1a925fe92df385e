package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	driver "modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/store"
	"github.com/edgeclm/edgeclm/internal/store/oslock"
)

// leaseFile is the name of the file of leases, beside the database.
const leaseFile = "leases.lock"

// How many connections read at the same time, and how many are kept. Who reads
// between the elements of ListDevices needs a second one.
const (
	maxReaders  = 16
	idleReaders = 4
)

// busyTimeout is how long another process's transaction is waited for: it takes
// milliseconds, but for one that imports a whole plant.
const (
	busyTimeout = 10 * time.Second
	busyWait    = 10 * time.Millisecond
)

// Options are what a caller may decide; the zero Options suit the product.
type Options struct {
	// MustExist refuses to make a database, with an error that wraps
	// fs.ErrNotExist.
	MustExist bool
}

// Store is an inventory in an SQLite file. It is safe for concurrent use.
type Store struct {
	view   // of the last commit
	readDB *sql.DB
	writer *writer
	leases *oslock.Leases
}

var _ enrol.Store = (*Store)(nil)

// Open opens the database at path, in a directory that exists, and makes it if
// need be. Errors wrap store.ErrVersion, store.ErrForeign or what the file
// system said.
func Open(ctx context.Context, path string, o Options) (*Store, error) {
	s, err := open(ctx, path, o)
	if err != nil {
		return nil, fmt.Errorf("open inventory %s: %w", path, err)
	}
	return s, nil
}

func open(ctx context.Context, path string, o Options) (_ *Store, err error) {
	// A relative path would change its meaning with the working directory
	// when a connection is opened later.
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := secureFile(path, o.MustExist); err != nil {
		return nil, err
	}
	if err := syncData(); err != nil {
		return nil, err
	}
	s := &Store{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.writer, err = openWriter(ctx, path); err != nil {
		return nil, err
	}
	if s.leases, err = oslock.OpenLeases(filepath.Join(filepath.Dir(path), leaseFile)); err != nil {
		return nil, err
	}
	if s.readDB, err = openDB(path, "query_only(1)"); err != nil {
		return nil, err
	}
	s.on = s.readDB
	s.readDB.SetMaxOpenConns(maxReaders)
	s.readDB.SetMaxIdleConns(idleReaders)
	return s, s.readDB.PingContext(ctx)
}

// syncData has SQLite sync with fdatasync(2), as distributions build it: as
// durable as fsync(2), without a journal commit of the file system for every
// time stamp. The driver has one switch for the process; it may be thrown at
// any time.
func syncData() error {
	if _, err := driver.Fdatasync(true); err != nil && !errors.Is(err, driver.ErrFdatasyncUnavailable) {
		return err
	}
	return nil
}

// Close waits for the changes under way, and refuses later ones.
func (s *Store) Close() error {
	var errs []error
	// The last connection to go writes the log back into the database; one
	// that may only read would leave it behind.
	if s.readDB != nil {
		errs = append(errs, s.readDB.Close())
	}
	if s.writer != nil {
		errs = append(errs, s.writer.close())
	}
	if s.leases != nil {
		errs = append(errs, s.leases.Close())
	}
	return errors.Join(errs...)
}

// Lease implements enrol.Store, see oslock.Leases.
func (s *Store) Lease(_ context.Context, device string) (release func(), err error) {
	return s.leases.Take(device)
}

// secureFile sees to it that the database exists and is readable by its owner
// alone. SQLite gives its companions the same mode. An existing file is not
// opened here: closing it would drop the locks that this process may have on
// it (fcntl(2)).
func secureFile(path string, mustExist bool) error {
	info, err := os.Stat(path)
	if err == nil {
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%w: not a regular file", store.ErrForeign)
		}
		if info.Mode().Perm()&0o077 != 0 {
			return os.Chmod(path, keyfile.SecretPerm)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) || mustExist {
		return err
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, keyfile.SecretPerm)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(file.Close(), keyfile.OS{}.SyncDir(filepath.Dir(path)))
}

// openDB returns a pool of connections with our settings and further pragmas.
func openDB(path string, pragmas ...string) (*sql.DB, error) {
	common := []string{
		fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()), "synchronous(FULL)", "foreign_keys(1)", "secure_delete(1)", "temp_store(MEMORY)",
		"trusted_schema(0)", "cell_size_check(1)", "journal_size_limit(16777216)",
	}
	query := url.Values{"_pragma": append(common, pragmas...), "_dqs": {"0"}, "_defensive": {"1"}, "_error_rc": {"1"}, "mode": {"rw"}}
	dsn := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: query.Encode()}
	connector, err := driver.NewConnector(dsn.String())
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

// isCode reports whether err is of an SQLite result code, primary or extended.
func isCode(err error, code int) bool {
	var e *driver.Error
	return errors.As(err, &e) && (e.Code() == code || e.Code()&0xff == code)
}

// explain says in the store's own sentinels what SQLite found.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrNoRows):
		return enrol.ErrNotFound
	case isCode(err, sqlite3.SQLITE_NOTADB):
		return fmt.Errorf("%w: %w", store.ErrForeign, err)
	case isCode(err, sqlite3.SQLITE_FULL), isCode(err, sqlite3.SQLITE_IOERR_SHMSIZE): // the latter: where even a reader needs room
		return fmt.Errorf("%w: %w", store.ErrFull, err)
	case isCode(err, sqlite3.SQLITE_CONSTRAINT_UNIQUE):
		return fmt.Errorf("%w: %w", enrol.ErrConflict, err)
	case isCode(err, sqlite3.SQLITE_CONSTRAINT):
		return fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	return err
}
