package pkgen

import (
	"bufio"
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

	csvBuffer     = 64 << 10 // bytes
	byteOrderMark = "\xef\xbb\xbf"
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
	extent    extent
}

// ReadCSV reads a list of devices: comma-separated UTF-8 (RFC 4180) with a
// header that names the columns, in any order: name (required), address,
// labels (k=v;k=v), recipient and names (kind:value;…). At most
// bundle.MaxRows lines are allowed, and no name twice. Errors give the line.
func ReadCSV(in io.Reader) ([]Line, error) {
	var lines []Line
	err := EachLine(in, func(l Line) error {
		l.extent = extent{} // nothing is read again
		lines = append(lines, l)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return lines, nil
}

// EachLine is ReadCSV of a list that is not kept: do is called with each line, in
// order, and an error of it ends the reading. Lines with the same labels have
// the same map, which is not to be changed.
func EachLine(in io.Reader, do func(Line) error) error {
	limited := &io.LimitedReader{R: in, N: maxCSV + 1}
	err := eachLine(bufio.NewReaderSize(limited, csvBuffer), do)
	if limited.N == 0 {
		return fmt.Errorf("more than %d bytes", maxCSV)
	}
	return err
}

func eachLine(in *bufio.Reader, do func(Line) error) error {
	start := int64(0)
	// Spreadsheets put a byte order mark at the front.
	if mark, err := in.Peek(len(byteOrderMark)); err == nil && string(mark) == byteOrderMark {
		_, _ = in.Discard(len(mark)) // it was seen
		start = int64(len(mark))
	}
	r := csv.NewReader(in)
	r.ReuseRecord = true
	header, err := r.Read()
	if err != nil {
		return csvError(err, "there is no header")
	}
	columns, err := parseHeader(header)
	if err != nil {
		return fmt.Errorf("line 1: %w", err)
	}
	var labels fleet.Interned
	seen := map[string]int{}
	for {
		from := r.InputOffset()
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return csvError(err, "")
		}
		number, _ := r.FieldPos(0)
		line, err := parseRecord(columns, record)
		if first, twice := seen[line.Name]; err == nil && twice {
			err = fmt.Errorf("%s is on line %d already", line.Name, first)
		}
		if err == nil && len(seen) == bundle.MaxRows {
			err = fmt.Errorf("more than %d devices", bundle.MaxRows)
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", number, err)
		}
		line.Number, line.Labels = number, labels.Labels(line.Labels)
		line.extent = extent{start + from, r.InputOffset() - from, slices.Index(columns, "recipient")}
		seen[line.Name] = number
		if err := do(line); err != nil {
			return err
		}
	}
	if len(seen) == 0 {
		return errors.New("there is no line below the header")
	}
	return nil
}

// extent is where the recipient of a line is.
type extent struct {
	from, size int64 // of the line, in bytes
	column     int
}

// RecipientIn returns a function that reads the line's recipient again from the
// list.
func (l Line) RecipientIn(list io.ReaderAt) func() (string, error) {
	at := l.extent
	return func() (string, error) {
		record, err := csv.NewReader(io.NewSectionReader(list, at.from, at.size)).Read()
		if err != nil || at.column < 0 || at.column >= len(record) {
			return "", errors.Join(errors.New("the list was changed while it was in use"), err)
		}
		return strings.TrimSpace(record[at.column]), nil
	}
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
