package clikit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
)

func elements(n int, width func(i int) int) func(func(clikit.Element, error) bool) {
	return func(yield func(clikit.Element, error) bool) {
		for i := range n {
			name := strings.Repeat("ñ", width(i))
			if !yield(clikit.Element{Value: map[string]any{"name": name, "n": i}, Row: []string{name, fmt.Sprint(i), "w"}}, nil) {
				return
			}
		}
	}
}

func streamed(t *testing.T, f clikit.Format, n int, width func(i int) int) string {
	t.Helper()
	var b bytes.Buffer
	columns := []clikit.Column{{Name: "name"}, {Name: "last_n"}, {Name: "w", Wide: true}}
	if err := clikit.RenderSeq(&b, f, columns, elements(n, width)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// A streamed list is byte for byte what the same list is in one piece.
func TestRenderSeqIsRender(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 3} {
		values := []any{}
		for x := range elements(n, func(int) int { return 2 }) {
			values = append(values, x.Value)
		}
		for _, f := range []clikit.Format{clikit.FormatJSON, clikit.FormatYAML} {
			var whole bytes.Buffer
			if err := clikit.Render(&whole, f, values, clikit.Table{}); err != nil {
				t.Fatal(err)
			}
			if got := streamed(t, f, n, func(int) int { return 2 }); got != whole.String() {
				t.Errorf("%s, %d elements:\n%s\nwant\n%s", f, n, got, whole.String())
			}
		}
		var fromJSON, fromYAML []any
		if err := json.Unmarshal([]byte(streamed(t, clikit.FormatJSON, n, func(int) int { return 1 })), &fromJSON); err != nil || len(fromJSON) != n {
			t.Errorf("%d: %v, %v", n, fromJSON, err)
		}
		if err := yaml.Unmarshal([]byte(streamed(t, clikit.FormatYAML, n, func(int) int { return 1 })), &fromYAML); err != nil || len(fromYAML) != n {
			t.Errorf("%d: %v, %v", n, fromYAML, err)
		}
	}
}

// Columns are aligned over pages, and grow only where a later page has more.
func TestRenderSeqPages(t *testing.T) {
	t.Parallel()
	lines := strings.Split(strings.TrimSpace(streamed(t, clikit.FormatTable, 2500, func(i int) int {
		if i == 2400 {
			return 20
		}
		return 5
	})), "\n")
	if len(lines) != 2501 || lines[0] != "NAME   LAST N" || lines[1] != "ñññññ  0" || lines[1999] != "ñññññ  1998" {
		t.Errorf("%d lines: %q, %q, %q", len(lines), lines[0], lines[1], lines[1999])
	}
	if want := "ñññññ" + strings.Repeat(" ", 17) + "2499"; lines[2500] != want {
		t.Errorf("%q, want %q", lines[2500], want)
	}
}

func TestRenderSeqEndsWithItsError(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for _, f := range []clikit.Format{clikit.FormatTable, clikit.FormatWide, clikit.FormatJSON, clikit.FormatYAML, clikit.FormatCSV} {
		var b bytes.Buffer
		err := clikit.RenderSeq(&b, f, clikit.Columns("name"), func(yield func(clikit.Element, error) bool) {
			if yield(clikit.Element{Value: 1, Row: []string{"x"}}, nil) {
				yield(clikit.Element{}, broken)
			}
		})
		if !errors.Is(err, broken) {
			t.Errorf("%s: %v", f, err)
		}
	}
}

// A result with a list at its end is byte for byte what it is in one piece.
func TestRenderListedIsRender(t *testing.T) {
	t.Parallel()
	type head struct {
		A string `json:"a"`
		B struct {
			C int `json:"c"`
		} `json:"b"`
	}
	type whole struct {
		head
		List []any `json:"list"`
	}
	for _, n := range []int{0, 1, 3} {
		for _, text := range []string{"x", "two\n\nlines\n", strings.Repeat("long and ", 40), "<&>", ": #"} {
			values, seq := []any{}, func(yield func(clikit.Element, error) bool) {
				for i := range n {
					if !yield(clikit.Element{Value: map[string]any{"n": i, "text": text, "in": []string{text, "y"}, "none": []int{}}, Row: []string{text}}, nil) {
						return
					}
				}
			}
			for x := range seq {
				values = append(values, x.Value)
			}
			for _, f := range []clikit.Format{clikit.FormatJSON, clikit.FormatYAML} {
				var want, got bytes.Buffer
				if err := clikit.Render(&want, f, whole{head{A: text}, values}, clikit.Table{}); err != nil {
					t.Fatal(err)
				}
				if err := clikit.RenderListed(&got, f, head{A: text}, "list", nil, seq); err != nil || got.String() != want.String() {
					t.Errorf("%s, %d elements:\n%s\nwant\n%s\n%v", f, n, got.String(), want.String(), err)
				}
			}
			var want, got bytes.Buffer
			if err := clikit.RenderSeq(&want, clikit.FormatTable, clikit.Columns("text"), seq); err != nil {
				t.Fatal(err)
			}
			if err := clikit.RenderListed(&got, clikit.FormatTable, head{}, "list", clikit.Columns("text"), seq); err != nil || got.String() != want.String() {
				t.Errorf("table:\n%s\nwant\n%s\n%v", got.String(), want.String(), err)
			}
		}
	}
}
