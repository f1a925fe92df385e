package clmctl

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/store"
)

const maxAddressFile = 64 << 20 // bytes

// parseAddresses parses comma-separated UTF-8 (RFC 4180) with the header
// name,address in either order, no name twice, at most bundle.MaxRows lines.
// Errors give the line.
func parseAddresses(data []byte) ([]store.Address, error) {
	// Spreadsheets put a byte order mark at the front.
	r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))))
	header, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("it is empty")
	}
	if err != nil {
		return nil, csvError(err)
	}
	name, address := slices.Index(header, "name"), slices.Index(header, "address")
	if len(header) != 2 || name < 0 || address < 0 {
		return nil, fmt.Errorf("line 1: the header is %.80q", strings.Join(header, ","))
	}
	var out []store.Address
	lines := map[string]int{}
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, csvError(err)
		}
		number, _ := r.FieldPos(0)
		a := store.Address{Device: strings.TrimSpace(record[name]), Address: strings.TrimSpace(record[address])}
		err = ibc.ValidateName(a.Device)
		if err == nil && a.Address != "" {
			err = bundle.ValidateAddress(a.Address)
		}
		if first, twice := lines[a.Device]; err == nil && twice {
			err = fmt.Errorf("%s is on line %d already", a.Device, first)
		}
		if err == nil && len(out) == bundle.MaxRows {
			err = fmt.Errorf("more than %d lines", bundle.MaxRows)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		lines[a.Device] = number
		out = append(out, a)
	}
}

func csvError(err error) error {
	var parse *csv.ParseError
	if errors.As(err, &parse) {
		return fmt.Errorf("line %d: %w", parse.Line, parse.Err)
	}
	return err
}
