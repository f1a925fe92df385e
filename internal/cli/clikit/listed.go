package clikit

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"iter"
)

// RenderListed is RenderSeq of a result that has a list beside other values: in
// JSON and YAML head with the list as its last member, named list; in the other
// formats the list alone. head is a struct without that member, with one at least.
func RenderListed(w io.Writer, f Format, head any, list string, columns []Column, elements iter.Seq2[Element, error]) error {
	if !f.Structured() {
		return RenderSeq(w, f, columns, elements)
	}
	out := bufio.NewWriterSize(w, 64<<10)
	var frame bytes.Buffer
	var err error
	if f == FormatJSON {
		if err = renderJSON(&frame, head); err != nil {
			return err
		}
		_, _ = out.Write(bytes.TrimSuffix(frame.Bytes(), []byte("\n}\n")))
		_, _ = fmt.Fprintf(out, ",\n  %q: ", list)
		err = jsonSeq(&indented{out: out, by: "  ", started: true}, elements)
		_, _ = out.WriteString("}\n")
	} else {
		if err = renderYAML(&frame, head); err != nil {
			return err
		}
		_, _ = out.Write(frame.Bytes())
		_, _ = fmt.Fprintf(out, "%s:", list)
		err = yamlMember(out, elements)
	}
	if err != nil {
		return err
	}
	return out.Flush()
}

// yamlMember writes the list behind its key.
func yamlMember(out *bufio.Writer, elements iter.Seq2[Element, error]) error {
	n := 0
	for x, err := range elements {
		if err != nil {
			return err
		}
		if n++; n == 1 {
			_ = out.WriteByte('\n')
		}
		if err := renderYAML(&indented{out: out, by: "  "}, []any{x.Value}); err != nil {
			return err
		}
	}
	if n == 0 {
		_, _ = out.WriteString(" []\n")
	}
	return nil
}

// indented indents lines that are not empty.
type indented struct {
	out     *bufio.Writer
	by      string
	started bool // within a line
}

// Write implements io.Writer. That the writer fails is told by its Flush.
func (i *indented) Write(p []byte) (int, error) {
	for line := range bytes.Lines(p) {
		if !i.started && len(line) > 1 {
			_, _ = i.out.WriteString(i.by)
		}
		_, _ = i.out.Write(line)
		i.started = line[len(line)-1] != '\n'
	}
	return len(p), nil
}
