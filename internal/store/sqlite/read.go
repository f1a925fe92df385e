package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"sync"
)

// view reads: the last commit, which may be another one at every call, or
// what was the last one when its transaction began.
type view struct {
	on interface {
		PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
	}
	statements sync.Map // prepared, by their text
}

// snapshot calls look with a view that does not change meanwhile.
func (s *Store) snapshot(ctx context.Context, look func(*view) error) error {
	tx, err := s.readDB.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	// There is nothing to commit, and what was read is good either way.
	defer func() { _ = tx.Rollback() }()
	return look(&view{on: tx})
}

// prepare returns a statement of the view. The text must be a constant, since
// what is prepared is kept.
func (v *view) prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	if statement, ok := v.statements.Load(query); ok {
		return statement.(*sql.Stmt), nil
	}
	statement, err := v.on.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	if other, loaded := v.statements.LoadOrStore(query, statement); loaded {
		return other.(*sql.Stmt), statement.Close()
	}
	return statement, nil
}

// queryRow runs a query for one row.
func (v *view) queryRow(ctx context.Context, query string, args []any, into ...any) error {
	statement, err := v.prepare(ctx, query)
	if err != nil {
		return err
	}
	return statement.QueryRowContext(ctx, args...).Scan(into...)
}

// scan calls each with every row of a query, until it returns an error.
func (v *view) scan(ctx context.Context, query string, args []any, each func(*sql.Rows) error) (err error) {
	statement, err := v.prepare(ctx, query)
	if err != nil {
		return err
	}
	rows, err := statement.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := each(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
