package pkgen

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
)

// Bounds of a CSV file.
const (
	maxCSV   = 256 << 20
	maxField = 8 << 10
)

// csvColumns are the columns that a header may name; the first is required.
func csvColumns() []string { return []string{"name", "address", "labels", "recipient", "names"} }

// Line is one line of a CSV file of devices.
type Line struct {
	Number    int // in the file, from 1
	Name      string
	Address   string // host:port or ""
	Labels    map[string]string
	Recipient string // an age recipient or the name of a file with one; "" if none
	Names     []fleet.Name
}

// ReadCSV reads a list of devices: comma-separated UTF-8 (RFC 4180) with a
// header that names the columns, in any order: name (required), address,
// labels (k=v;k=v), recipient and names (kind:value;…). At most
// bundle.MaxRows lines are allowed, and no name twice. Errors give the line.
func ReadCSV(in io.Reader) ([]Line, error) {
	data, err := io.ReadAll(io.LimitReader(in, maxCSV+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxCSV {
		return nil, fmt.Errorf("more than %d bytes", maxCSV)
	}
	// Spreadsheets put a byte order mark at the front.
	r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))))
	r.ReuseRecord = true
	header, err := r.Read()
	if err != nil {
		return nil, csvError(err, "there is no header")
	}
	columns, err := parseHeader(header)
	if err != nil {
		return nil, fmt.Errorf("line 1: %w", err)
	}
	var lines []Line
	seen := map[string]int{}
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, csvError(err, "")
		}
		number, _ := r.FieldPos(0)
		line, err := parseRecord(columns, record)
		if first, twice := seen[line.Name]; err == nil && twice {
			err = fmt.Errorf("%s is on line %d already", line.Name, first)
		}
		if err == nil && len(lines) == bundle.MaxRows {
			err = fmt.Errorf("more than %d devices", bundle.MaxRows)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		line.Number = number
		seen[line.Name] = number
		lines = append(lines, line)
	}
	if len(lines) == 0 {
		return nil, errors.New("there is no line below the header")
	}
	return lines, nil
}

func csvError(err error, empty string) error {
	var parse *csv.ParseError
	switch {
	case errors.As(err, &parse):
		return fmt.Errorf("line %d: %w", parse.Line, parse.Err)
	case errors.Is(err, io.EOF):
		return errors.New(empty)
	}
	return err
}

func parseHeader(header []string) ([]string, error) {
	columns := slices.Clone(header)
	for i, c := range columns {
		if !slices.Contains(csvColumns(), c) {
			return nil, fmt.Errorf("column %.40q is none of %s", c, strings.Join(csvColumns(), ", "))
		}
		if slices.Contains(columns[:i], c) {
			return nil, fmt.Errorf("column %q is there twice", c)
		}
	}
	if !slices.Contains(columns, "name") {
		return nil, errors.New(`there is no column "name"`)
	}
	return columns, nil
}

func parseRecord(columns, record []string) (Line, error) {
	var l Line
	for i, field := range record {
		if len(field) > maxField {
			return l, fmt.Errorf("%s has more than %d bytes", columns[i], maxField)
		}
		var err error
		switch field = strings.Clone(strings.TrimSpace(field)); columns[i] {
		case "name":
			l.Name, err = field, ibc.ValidateName(field)
		case "address":
			l.Address, err = NormaliseAddress(field)
		case "labels":
			l.Labels, err = fleet.ParseLabels(field)
		case "recipient":
			l.Recipient = field
		case "names":
			l.Names, err = fleet.ParseNames(field)
		}
		if err != nil {
			return l, err
		}
	}
	return l, nil
}
