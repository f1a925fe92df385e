package receipt

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// Row is a device of a manifest: in JSON an array of identity and ledger index.
// The digest of rows is the SHA-256 over all of them as
//
//	identity SP ledger-index LF
type Row struct {
	Identity    ibc.Identity
	LedgerIndex uint64
}

// appendText appends what the digest covers.
func (r Row) appendText(out []byte) []byte {
	out = append(append(out, r.Identity.String()...), ' ')
	return append(strconv.AppendUint(out, r.LedgerIndex, 10), '\n')
}

// UnmarshalJSON reads the array.
func (r *Row) UnmarshalJSON(data []byte) error {
	var pair []json.RawMessage
	if err := json.Unmarshal(data, &pair); err != nil || len(pair) != 2 {
		return errors.New("a row is not an array of two")
	}
	if err := json.Unmarshal(pair[0], &r.Identity); err != nil {
		return err
	}
	return json.Unmarshal(pair[1], &r.LedgerIndex)
}

// encodeRows returns the member rows and its digest.
func encodeRows(rows []Row) (json.RawMessage, bundle.Hash) {
	out := []byte{'['}
	digest := sha256.New()
	for i, r := range rows {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(out, "\n  [\""...)
		out = append(append(out, r.Identity.String()...), `",`...)
		out = append(strconv.AppendUint(out, r.LedgerIndex, 10), ']')
		digest.Write(r.appendText(nil))
	}
	return append(out, ']'), bundle.Hash(digest.Sum(nil))
}

// Rows returns the devices of a Commissioned, none of other kinds.
func (s *Signed) Rows() iter.Seq[Row] {
	return func(yield func(Row) bool) {
		for r, err := range s.readRows() {
			if err != nil || !yield(r) {
				return // no error comes: checkRows has read them all
			}
		}
	}
}

// readRows reads row by row.
func (s *Signed) readRows() iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		d := json.NewDecoder(bytes.NewReader(s.rows))
		if open, err := d.Token(); err != nil || open != json.Delim('[') {
			yield(Row{}, errors.New("the rows are not an array"))
			return
		}
		for d.More() {
			var r Row
			err := d.Decode(&r)
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// checkRows holds the rows to their count and digest.
func (s *Signed) checkRows() error {
	if s.Commissioned == nil {
		if len(s.rows) > 0 {
			return fmt.Errorf("%w: rows beside the receipt of a bundle", ErrFormat)
		}
		return nil
	}
	digest := sha256.New()
	n := 0
	var line []byte
	for r, err := range s.readRows() {
		if n++; err == nil && n > s.Commissioned.Rows {
			err = errors.New("more than the signed count")
		}
		if err == nil && r.Identity.Role != ibc.RoleDevice {
			err = fmt.Errorf("%s is no device", r.Identity)
		}
		if err != nil {
			return fmt.Errorf("%w: row %d: %w", ErrFormat, n, err)
		}
		line = r.appendText(line[:0])
		digest.Write(line)
	}
	if n != s.Commissioned.Rows || bundle.Hash(digest.Sum(nil)) != s.Commissioned.RowsHash {
		return fmt.Errorf("%w: its %d rows are not those that were signed", ErrFormat, n)
	}
	return nil
}
