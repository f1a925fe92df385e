package enrol_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"testing"

	"github.com/edgeclm/edgeclm/internal/enrol"
)

// TestEveryKindIsListed: a constant that is added has to be added to the lists,
// which statistics are made of.
func TestEveryKindIsListed(t *testing.T) {
	t.Parallel()
	var classes, kinds []string
	for _, c := range enrol.Classes() {
		classes = append(classes, string(c))
	}
	for _, k := range enrol.EventKinds() {
		kinds = append(kinds, string(k))
	}
	for _, tt := range []struct {
		file, kind string
		listed     []string
	}{{"fault.go", "Class", classes}, {"store.go", "EventKind", kinds}} {
		if want := constants(t, tt.file, tt.kind); len(want) == 0 || !slices.Equal(tt.listed, want) {
			t.Errorf("%s: listed are %q, constants are %q", tt.kind, tt.listed, want)
		}
	}
}

// constants returns the values of a file's constants of a type.
func constants(t *testing.T, file, kind string) []string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if name, ok := spec.Type.(*ast.Ident); !ok || name.Name != kind {
			return true
		}
		for _, v := range spec.Values {
			if lit, ok := v.(*ast.BasicLit); ok {
				s, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				values = append(values, s)
			}
		}
		return true
	})
	return values
}
