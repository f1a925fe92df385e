package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"

	driver "modernc.org/sqlite"
)

// peekRows bounds how many devices are looked at for the labels that there are.
const peekRows = 20_000

// Peek is a look into an inventory for those who wait at a prompt: it makes no
// file, brings no schema up to date, and waits for nobody.
type Peek struct{ db *sql.DB }

// OpenPeek opens the database at path for looking. Errors are those of the
// first look.
func OpenPeek(path string) (*Peek, error) {
	db, err := openReadOnly(path)
	if err != nil {
		return nil, fmt.Errorf("look into inventory %s: %w", path, err)
	}
	return &Peek{db}, nil
}

// openReadOnly returns connections that cannot change anything.
func openReadOnly(path string, pragmas ...string) (*sql.DB, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	query := url.Values{"mode": {"ro"}, "_pragma": append(pragmas, "query_only(1)", "trusted_schema(0)")}
	dsn := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: query.Encode()}
	connector, err := driver.NewConnector(dsn.String())
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

// Close ends the look.
func (p *Peek) Close() error { return p.db.Close() }

// Names returns the first names of devices that begin with prefix, in order.
func (p *Peek) Names(ctx context.Context, prefix string, limit int) ([]string, error) {
	return p.list(ctx, "SELECT name FROM device WHERE name >= ?1 AND name < ?1 || char(0x10ffff) ORDER BY name LIMIT ?2", prefix, limit)
}

// Assets returns the first assets of devices that begin with prefix.
func (p *Peek) Assets(ctx context.Context, prefix string, limit int) ([]string, error) {
	return p.list(ctx, `SELECT asset FROM device WHERE asset IS NOT NULL AND substr(asset, 1, length(?1)) = ?1 COLLATE NOCASE
		ORDER BY asset LIMIT ?2`, prefix, limit)
}

const selectLabels = `FROM (SELECT coalesce(labels_manual, labels) AS all_labels FROM device LIMIT ?3), json_each(all_labels) AS label `

// LabelKeys returns the first keys of labels that begin with prefix, in order.
func (p *Peek) LabelKeys(ctx context.Context, prefix string, limit int) ([]string, error) {
	return p.list(ctx, "SELECT DISTINCT label.key "+selectLabels+
		"WHERE substr(label.key, 1, length(?1)) = ?1 ORDER BY label.key LIMIT ?2", prefix, limit, peekRows)
}

// LabelValues returns the first values of a label that begin with prefix, in
// order.
func (p *Peek) LabelValues(ctx context.Context, key, prefix string, limit int) ([]string, error) {
	return p.list(ctx, "SELECT DISTINCT label.value "+selectLabels+
		"WHERE label.key = ?4 AND substr(label.value, 1, length(?1)) = ?1 ORDER BY label.value LIMIT ?2", prefix, limit, peekRows, key)
}

func (p *Peek) list(ctx context.Context, query string, args ...any) (out []string, err error) {
	rows, err := p.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("look into the inventory: %w", explain(err))
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		out = append(out, text)
	}
	return out, rows.Err()
}
