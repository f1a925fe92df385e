package clikit

import "io"

// Field is a named value of a result that has one value per name.
type Field struct{ Name, Value string }

// RenderRecord writes such a result: value as JSON or YAML, fields as a table
// of names and values, or as one row of CSV.
func RenderRecord(w io.Writer, f Format, value any, fields ...Field) error {
	var t Table
	if f == FormatCSV {
		row := make([]string, 0, len(fields))
		for _, x := range fields {
			t.Columns = append(t.Columns, Column{Name: x.Name})
			row = append(row, x.Value)
		}
		t.Rows = [][]string{row}
	} else {
		t.Columns = Columns("field", "value")
		for _, x := range fields {
			t.Rows = append(t.Rows, []string{x.Name, x.Value})
		}
	}
	return Render(w, f, value, t)
}
