package clikit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Format is how results are written; it is the value of -o.
type Format string

// The formats. A wide table has the columns that a plain one leaves out.
const (
	FormatTable Format = "table"
	FormatWide  Format = "wide"
	FormatJSON  Format = "json"
	FormatYAML  Format = "yaml"
	FormatCSV   Format = "csv"
)

func formats() []string { return []string{"table", "wide", "json", "yaml", "csv"} }

// String implements pflag.Value.
func (f *Format) String() string { return string(*f) }

// Type implements pflag.Value.
func (f *Format) Type() string { return "format" }

// Set implements pflag.Value.
func (f *Format) Set(s string) error {
	if !slices.Contains(formats(), s) {
		return Usage("%q is none of %s", s, strings.Join(formats(), ", "))
	}
	*f = Format(s)
	return nil
}

// Column is a column of a Table.
type Column struct {
	Name string // as in the header of CSV: lower case, words joined by '_'
	Wide bool   // only in wide tables and CSV
}

// Columns returns plain columns with these names.
func Columns(names ...string) []Column {
	columns := make([]Column, len(names))
	for i, n := range names {
		columns[i] = Column{Name: n}
	}
	return columns
}

// Table is a result for people; every row has a cell for every column.
type Table struct {
	Columns []Column
	Rows    [][]string
}

// Render writes a result: value as JSON or YAML (with the keys and order of its
// JSON), table in the other formats.
func Render(w io.Writer, f Format, value any, table Table) error {
	switch f {
	case FormatJSON:
		return renderJSON(w, value)
	case FormatYAML:
		return renderYAML(w, value)
	}
	return RenderSeq(w, f, table.Columns, func(yield func(Element, error) bool) {
		for _, row := range table.Rows {
			if !yield(Element{Row: row}, nil) {
				return
			}
		}
	})
}

func renderJSON(w io.Writer, value any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(value)
}

// renderYAML goes through JSON, so that one set of tags rules both: JSON is
// YAML in another style.
func renderYAML(w io.Writer, value any) error {
	var buf bytes.Buffer
	if err := renderJSON(&buf, value); err != nil {
		return err
	}
	var node yaml.Node
	if err := yaml.Unmarshal(buf.Bytes(), &node); err != nil {
		return fmt.Errorf("write YAML: %w", err)
	}
	blockStyle(&node)
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	if err := e.Encode(&node); err != nil {
		return fmt.Errorf("write YAML: %w", err)
	}
	return e.Close()
}

func blockStyle(n *yaml.Node) {
	if len(n.Content) > 0 || n.Kind == yaml.ScalarNode {
		n.Style = 0
	}
	for _, c := range n.Content {
		blockStyle(c)
	}
}
