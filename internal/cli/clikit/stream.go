package clikit

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strings"
	"unicode/utf8"
)

// Element is one element of a result that is a list, as JSON and YAML show it
// and as a row of a table. Only what the format asks for need be there
// (Format.Structured).
type Element struct {
	Value any
	Row   []string
}

// Structured reports whether a format shows values rather than rows.
func (f Format) Structured() bool { return f == FormatJSON || f == FormatYAML }

// pageRows is how many rows of a table are looked at before they are written:
// the columns are as wide as these need, and become wider at most once a page.
const pageRows = 1000

// RenderSeq is Render of a list that may be longer than memory should hold:
// elements are written as they come. After an error of the sequence, which it
// returns, the output is incomplete.
func RenderSeq(w io.Writer, f Format, columns []Column, elements iter.Seq2[Element, error]) error {
	out := bufio.NewWriterSize(w, 64<<10)
	var err error
	switch f {
	case FormatJSON:
		err = jsonSeq(out, elements)
	case FormatYAML:
		err = yamlSeq(out, elements)
	case FormatCSV:
		err = csvSeq(out, columns, elements)
	default:
		err = (&tableWriter{out: out, columns: shown(columns, f == FormatWide)}).write(columns, elements)
	}
	if err != nil {
		return err
	}
	return out.Flush()
}

// jsonSeq writes to what fails late, if at all: its Flush tells.
func jsonSeq(w io.Writer, elements iter.Seq2[Element, error]) error {
	var element bytes.Buffer
	e := json.NewEncoder(&element)
	e.SetEscapeHTML(false)
	e.SetIndent("  ", "  ")
	n := 0
	for x, err := range elements {
		if err != nil {
			return err
		}
		element.Reset()
		if err := e.Encode(x.Value); err != nil {
			return err
		}
		start := "[\n  "
		if n > 0 {
			start = ",\n  "
		}
		_, _ = io.WriteString(w, start)
		_, _ = w.Write(bytes.TrimSuffix(element.Bytes(), []byte("\n")))
		n++
	}
	if n == 0 {
		_, err := io.WriteString(w, "[]\n")
		return err
	}
	_, err := io.WriteString(w, "\n]\n")
	return err
}

func yamlSeq(w *bufio.Writer, elements iter.Seq2[Element, error]) error {
	n := 0
	for x, err := range elements {
		if err != nil {
			return err
		}
		n++
		if err := renderYAML(w, []any{x.Value}); err != nil {
			return err
		}
	}
	if n == 0 {
		_, err := w.WriteString("[]\n")
		return err
	}
	return nil
}

func csvSeq(w *bufio.Writer, columns []Column, elements iter.Seq2[Element, error]) error {
	c := csv.NewWriter(w)
	header := make([]string, len(columns))
	for i, column := range columns {
		header[i] = column.Name
	}
	if err := c.Write(header); err != nil {
		return err
	}
	for x, err := range elements {
		if err != nil {
			return err
		}
		if err := c.Write(x.Row); err != nil {
			return err
		}
	}
	c.Flush()
	return c.Error()
}

// tableWriter writes a table in pages.
type tableWriter struct {
	out     *bufio.Writer
	columns []int // of a row, those that are shown
	widths  []int
	page    [][]string
}

func shown(columns []Column, wide bool) []int {
	var out []int
	for i, c := range columns {
		if wide || !c.Wide {
			out = append(out, i)
		}
	}
	return out
}

func (t *tableWriter) write(columns []Column, elements iter.Seq2[Element, error]) error {
	header := make([]string, len(columns))
	for i, c := range columns {
		header[i] = strings.ToUpper(strings.ReplaceAll(c.Name, "_", " "))
	}
	t.widths = make([]int, len(t.columns))
	t.add(header)
	for x, err := range elements {
		if err != nil {
			return err
		}
		t.add(x.Row)
		if len(t.page) == pageRows {
			t.flush()
		}
	}
	t.flush()
	return nil
}

// add takes a row down, without what could write to the terminal.
func (t *tableWriter) add(row []string) {
	cells := make([]string, len(t.columns))
	for i, column := range t.columns {
		cells[i] = "-"
		if row[column] != "" {
			cells[i] = OneLine(row[column])
		}
		t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cells[i]))
	}
	t.page = append(t.page, cells)
}

// flush writes the page. That the writer fails is told by its own Flush.
func (t *tableWriter) flush() {
	for _, cells := range t.page {
		for i, cell := range cells {
			if i == len(cells)-1 {
				_, _ = fmt.Fprintln(t.out, cell)
				continue
			}
			_, _ = t.out.WriteString(cell)
			for range t.widths[i] - utf8.RuneCountInString(cell) + 2 {
				_ = t.out.WriteByte(' ')
			}
		}
	}
	t.page = t.page[:0]
}
