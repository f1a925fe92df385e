package pkgoffline_test

import (
	"bytes"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/airgap"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/cli/pkgoffline"
)

// secretReaders are the functions that read what opens a secret.
var secretReaders = regexp.MustCompile(`^(clikit|keyfile)\.(Read|Ask)\w*(Secret|Passphrase|Opener)\w*$`)

// Nobody can forget the gate: what reads a secret is called in its file alone,
// by methods of the gate.
func TestSecretsAreReadThroughTheGateAlone(t *testing.T) {
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	atTheGate := 0
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			selector, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			pkg, ok := selector.X.(*ast.Ident)
			if !ok || !secretReaders.MatchString(pkg.Name+"."+selector.Sel.Name) {
				return true
			}
			if name == "airgap.go" {
				atTheGate++
			} else {
				t.Errorf("%s calls %s.%s: read it through the gate (checkAirGap)", name, pkg.Name, selector.Sel.Name)
			}
			return true
		})
	}
	if atTheGate < 2 {
		t.Errorf("%d calls found at the gate: does the test still know the functions?", atTheGate)
	}
}

// stuck is a machine on which a process cannot be cut off, in a container that
// allows no filters.
type stuck struct{ tried *bool }

func (stuck) Facts() (airgap.Facts, error) {
	return airgap.Facts{Interfaces: []string{"eth0"}}, nil
}

func (s stuck) Isolate() (airgap.Isolation, error) {
	*s.tried = true
	return airgap.Isolation{}, airgap.ErrDenial
}

// The denial is never waived: where it fails, nothing is read, with --lab or not.
func TestDenialIsNeverWaived(t *testing.T) {
	dir := t.TempDir()
	pass := filepath.Join(dir, "pass")
	if err := os.WriteFile(pass, []byte("correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var tried bool
	var out, errOut bytes.Buffer
	code := pkgoffline.MainWith(
		[]string{"init", "--lab", "--dir", filepath.Join(dir, "pkg"), "--passphrase-file", pass},
		clikit.Streams{In: strings.NewReader(""), Out: &out, Err: &errOut},
		pkgoffline.Deps{Now: time.Now, AirGap: stuck{&tried}, WorkFactor: workFactor})
	if code != clikit.ExitFailed || !tried || !strings.Contains(errOut.String(), airgap.ErrDenial.Error()) {
		t.Errorf("exit %d, tried %t: %s", code, tried, errOut.String())
	}
	if _, err := os.Stat(filepath.Join(dir, "pkg")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a PKG was made: %v", err)
	}
}
