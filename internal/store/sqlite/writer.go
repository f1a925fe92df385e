package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/edgeclm/edgeclm/internal/store"
)

// maxBatch bounds the changes in one transaction, and so what one of them
// waits for the others.
const maxBatch = 64

// writer is the one goroutine that changes the database.
type writer struct {
	db   *sql.DB
	tx   tx
	jobs chan *job

	mu     sync.RWMutex // held for reading while a job is handed over
	closed bool
	done   chan struct{}
}

// job is one change.
type job struct {
	ctx     context.Context
	apply   func(ctx context.Context, t *tx) error
	claimed atomic.Bool // by the writer, or by a caller who gave up waiting
	err     error
	done    chan struct{} // closed when err is final
}

// openWriter opens the connection that writes, and brings the database up to
// date on it.
func openWriter(ctx context.Context, path string) (*writer, error) {
	db, err := openDB(path)
	if err != nil {
		return nil, err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, errors.Join(explain(err), db.Close())
	}
	if err := migrate(ctx, conn); err != nil {
		return nil, errors.Join(err, conn.Close(), db.Close())
	}
	w := &writer{
		db: db, tx: tx{conn: conn, statements: map[string]*sql.Stmt{}, reader: newRecordReader()},
		jobs: make(chan *job, maxBatch), done: make(chan struct{}),
	}
	go w.run()
	return w, nil
}

// do has a change made, and returns when it is durable or refused. If ctx ends
// before its turn it is not made; during its turn the outcome is waited for,
// since the caller has to know it.
func (w *writer) do(ctx context.Context, apply func(ctx context.Context, t *tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	j := &job{ctx: ctx, apply: apply, done: make(chan struct{})}
	if err := w.hand(j); err != nil {
		return err
	}
	select {
	case <-j.done:
		return j.err
	case <-ctx.Done():
		if j.claimed.CompareAndSwap(false, true) {
			return ctx.Err()
		}
		<-j.done
		return j.err
	}
}

func (w *writer) hand(j *job) error {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.closed {
		return store.ErrClosed
	}
	select {
	case w.jobs <- j:
		return nil
	case <-j.ctx.Done():
		return j.ctx.Err()
	}
}

func (w *writer) close() error {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil
	}
	w.closed = true
	close(w.jobs)
	w.mu.Unlock()
	<-w.done
	return errors.Join(w.tx.close(), w.db.Close())
}

func (w *writer) run() {
	defer close(w.done)
	batch := make([]*job, 0, maxBatch)
	for first := range w.jobs {
		batch = w.gather(batch[:0], first)
		w.commit(batch)
		for _, j := range batch {
			close(j.done)
		}
		clear(batch)
	}
}

// gather takes what is waiting, without waiting for more.
func (w *writer) gather(batch []*job, first *job) []*job {
	for j := first; ; {
		if j.claimed.CompareAndSwap(false, true) {
			batch = append(batch, j)
		}
		if len(batch) == maxBatch {
			return batch
		}
		var ok bool
		select {
		case j, ok = <-w.jobs:
			if !ok {
				return batch
			}
		default:
			return batch
		}
	}
}

// commit makes the changes of a batch in one transaction. A change that is
// refused leaves the others alone; if the transaction as a whole fails, all of
// them do.
func (w *writer) commit(batch []*job) {
	if len(batch) == 0 {
		return
	}
	// Nobody's context may interrupt a statement that others depend on.
	ctx := context.Background()
	err := w.tx.exec(ctx, "BEGIN IMMEDIATE")
	if err == nil {
		err = w.apply(ctx, batch)
		if err == nil {
			err = w.tx.exec(ctx, "COMMIT")
		}
		if err != nil {
			// SQLite has rolled back by itself after some errors; that this
			// fails then says nothing.
			_ = w.tx.exec(ctx, "ROLLBACK")
		}
	}
	if err != nil {
		for _, j := range batch {
			j.err = fmt.Errorf("write to the database: %w", err)
		}
	}
}

// apply returns an error only if the transaction is lost.
func (w *writer) apply(ctx context.Context, batch []*job) error {
	for _, j := range batch {
		if err := w.tx.exec(ctx, "SAVEPOINT change"); err != nil {
			return err
		}
		j.err = explain(j.apply(ctx, &w.tx))
		if j.err != nil {
			if err := w.tx.exec(ctx, "ROLLBACK TO change"); err != nil {
				return errors.Join(j.err, err)
			}
		}
		if err := w.tx.exec(ctx, "RELEASE change"); err != nil {
			return err
		}
	}
	return nil
}

// tx is the writer's connection, in a transaction, with its statements
// prepared once.
type tx struct {
	conn       *sql.Conn
	statements map[string]*sql.Stmt
	reader     *recordReader
}

// prepare returns the statement; query must be a constant, since it is kept.
func (t *tx) prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	if s, ok := t.statements[query]; ok {
		return s, nil
	}
	s, err := t.conn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	t.statements[query] = s
	return s, nil
}

// close finalises the statements too: database/sql leaves those of a single
// connection to whoever prepared them, and SQLite closes no connection that
// has any.
func (t *tx) close() error {
	var errs []error
	for _, s := range t.statements {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, t.conn.Close())...)
}

func (t *tx) exec(ctx context.Context, query string, args ...any) error {
	_, err := t.execCount(ctx, query, args...)
	return err
}

// execCount returns how many rows were changed.
func (t *tx) execCount(ctx context.Context, query string, args ...any) (int64, error) {
	s, err := t.prepare(ctx, query)
	if err != nil {
		return 0, err
	}
	result, err := s.ExecContext(ctx, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

func (t *tx) insert(ctx context.Context, query string, args ...any) (id int64, err error) {
	s, err := t.prepare(ctx, query)
	if err != nil {
		return 0, err
	}
	result, err := s.ExecContext(ctx, args...)
	if err != nil {
		return 0, err
	}
	return result.LastInsertId()
}

func (t *tx) queryRow(ctx context.Context, query string, args []any, into ...any) error {
	s, err := t.prepare(ctx, query)
	if err != nil {
		return err
	}
	return s.QueryRowContext(ctx, args...).Scan(into...)
}
