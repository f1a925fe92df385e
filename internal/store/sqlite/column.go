package sqlite

import (
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/edgeclm/edgeclm/internal/ibc"
)

// cell ties a column to a Go value, for both directions.
type cell interface {
	driver.Valuer
	sql.Scanner
}

// column is a column by its name, or an expression of an SQL query.
type column struct {
	name string
	cell cell
}

// nameList returns "a, b, c".
func nameList(columns []column) string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.name
	}
	return strings.Join(names, ", ")
}

// assignments returns "a = ?, b = ?, c = ?".
func assignments(columns []column) string {
	return strings.ReplaceAll(nameList(columns), ",", " = ?,") + " = ?"
}

// values returns the columns' values as arguments of a statement, with further
// ones behind.
func values(columns []column, more ...any) []any {
	out := make([]any, 0, len(columns)+len(more))
	for _, c := range columns {
		out = append(out, c.cell)
	}
	return append(out, more...)
}

// timestamp is a time in microseconds since 1970-01-01 UTC, rounded down; NULL
// for the zero time. Nanoseconds would not reach the year 9999, which RFC 5280
// section 4.1.2.5 has for certificates without an end.
type timestamp struct{ t *time.Time }

func (c timestamp) Value() (driver.Value, error) {
	if c.t.IsZero() {
		return nil, nil
	}
	return c.t.UnixMicro(), nil
}

func (c timestamp) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*c.t = time.Time{}
	case int64:
		*c.t = time.UnixMicro(v).UTC()
	default:
		return unexpected(v)
	}
	return nil
}

// text is a string; NULL reads as the empty one.
type text[T ~string] struct{ s *T }

func (c text[T]) Value() (driver.Value, error) { return string(*c.s), nil }

func (c text[T]) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*c.s = ""
	case string:
		*c.s = T(v)
	default:
		return unexpected(v)
	}
	return nil
}

func textOf[T ~string](s *T) cell { return text[T]{s} }

// integer is a number, or a duration in nanoseconds.
type integer[T ~int | ~int64 | ~uint32 | ~uint64] struct{ n *T }

func (c integer[T]) Value() (driver.Value, error) { return int64(*c.n), nil }

func (c integer[T]) Scan(v any) error {
	n, ok := v.(int64)
	if !ok {
		return unexpected(v)
	}
	*c.n = T(n)
	return nil
}

func integerOf[T ~int | ~int64 | ~uint32 | ~uint64](n *T) cell { return integer[T]{n} }

// flag is 0 or 1.
type flag struct{ b *bool }

func (c flag) Value() (driver.Value, error) {
	if *c.b {
		return int64(1), nil
	}
	return int64(0), nil
}

func (c flag) Scan(v any) error {
	n, ok := v.(int64)
	if !ok {
		return unexpected(v)
	}
	*c.b = n != 0
	return nil
}

// digest is 32 bytes; NULL for all zero.
type digest struct{ h *[32]byte }

func (c digest) Value() (driver.Value, error) {
	if *c.h == [32]byte{} {
		return nil, nil
	}
	return c.h[:], nil
}

func (c digest) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*c.h = [32]byte{}
		return nil
	case []byte:
		if len(v) == len(c.h) {
			*c.h = [32]byte(v)
			return nil
		}
	}
	return unexpected(v)
}

// blob is a string of bytes; NULL for none.
type blob struct{ b *[]byte }

func (c blob) Value() (driver.Value, error) {
	if len(*c.b) == 0 {
		return nil, nil
	}
	return *c.b, nil
}

func (c blob) Scan(v any) error {
	switch v := v.(type) {
	case nil:
		*c.b = nil
	case []byte:
		*c.b = append([]byte(nil), v...)
	default:
		return unexpected(v)
	}
	return nil
}

// identity is an identity string; empty for the zero identity.
type identity struct{ id *ibc.Identity }

func (c identity) Value() (driver.Value, error) {
	if *c.id == (ibc.Identity{}) {
		return "", nil
	}
	text, err := c.id.MarshalText()
	return string(text), err
}

func (c identity) Scan(v any) error {
	s, ok := v.(string)
	if !ok {
		return unexpected(v)
	}
	if s == "" {
		*c.id = ibc.Identity{}
		return nil
	}
	return c.id.UnmarshalText([]byte(s))
}

// document is a list or map as JSON; v points to it.
type document struct{ v any }

func (c document) Value() (driver.Value, error) {
	text, err := json.Marshal(c.v)
	return string(text), err
}

func (c document) Scan(v any) error {
	s, ok := v.(string)
	if !ok {
		return unexpected(v)
	}
	return json.Unmarshal([]byte(s), c.v)
}

// labelSets is the label sets of a fleet by their JSON: a hundred thousand
// devices have a few dozen.
type labelSets map[string]map[string]string

// sharedLabels is labels as JSON; equal ones are read once, and shared.
type sharedLabels struct {
	into *map[string]string
	seen labelSets
}

func (c sharedLabels) Value() (driver.Value, error) { return document{c.into}.Value() }

func (c sharedLabels) Scan(v any) error {
	s, ok := v.(string)
	if !ok {
		return unexpected(v)
	}
	labels, known := c.seen[s]
	if !known {
		if err := json.Unmarshal([]byte(s), &labels); err != nil {
			return err
		}
		c.seen[s] = labels
	}
	*c.into = labels
	return nil
}

func unexpected(v any) error { return fmt.Errorf("the database has an unexpected value of type %T", v) }
