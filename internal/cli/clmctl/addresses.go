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
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/store"
)

const maxAddressFile = 64 << 20 // bytes

// parseAddresses parses a list with the header name,address.
func parseAddresses(data []byte) ([]store.Address, error) {
	var out []store.Address
	err := parseNamed(data, "address", bundle.ValidateAddress, func(name, address string) {
		out = append(out, store.Address{Device: name, Address: address})
	})
	return out, err
}

// parseAssets parses a list with the header name,asset.
func parseAssets(data []byte) ([]store.Asset, error) {
	var out []store.Asset
	err := parseNamed(data, "asset", fleet.ValidateAsset, func(name, asset string) {
		out = append(out, store.Asset{Device: name, Asset: asset})
	})
	return out, err
}

// parseNamed parses comma-separated UTF-8 (RFC 4180) with a header of name and
// another column, in either order, no name twice, at most bundle.MaxRows lines.
// Values may be empty. Errors give the line.
func parseNamed(data []byte, column string, validate func(string) error, each func(name, value string)) error {
	// Spreadsheets put a byte order mark at the front.
	r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))))
	header, err := r.Read()
	if errors.Is(err, io.EOF) {
		return errors.New("it is empty")
	}
	if err != nil {
		return csvError(err)
	}
	name, value := slices.Index(header, "name"), slices.Index(header, column)
	if len(header) != 2 || name < 0 || value < 0 {
		return fmt.Errorf("line 1: the header is %.80q", strings.Join(header, ","))
	}
	lines := map[string]int{}
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return csvError(err)
		}
		number, _ := r.FieldPos(0)
		device, text := strings.TrimSpace(record[name]), strings.TrimSpace(record[value])
		err = ibc.ValidateName(device)
		if err == nil && text != "" {
			err = validate(text)
		}
		if first, twice := lines[device]; err == nil && twice {
			err = fmt.Errorf("%s is on line %d already", device, first)
		}
		if err == nil && len(lines) == bundle.MaxRows {
			err = fmt.Errorf("more than %d lines", bundle.MaxRows)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
		lines[device] = number
		each(device, text)
	}
}

func csvError(err error) error {
	var parse *csv.ParseError
	if errors.As(err, &parse) {
		return fmt.Errorf("line %d: %w", parse.Line, parse.Err)
	}
	return err
}
