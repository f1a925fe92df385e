package pkgoffline_test

import (
	"debug/elf"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// networkCode are packages, and those below a path that ends in '/', that the
// PKG is never made of. Package net is: crypto/x509 and pflag parse addresses
// with it. What it could do, the process denies itself (internal/airgap).
var networkCode = []string{
	"net/http", "net/http/", "net/rpc", "net/smtp", "net/textproto", "crypto/tls", "os/exec", "plugin",
	"github.com/pion/", "github.com/plgd-dev/", "github.com/spf13/viper", "github.com/smallstep/", "github.com/wneessen/",
	"github.com/prometheus/", "golang.org/x/net/http/", "golang.org/x/net/http2", "golang.org/x/crypto/ssh",
	"github.com/edgeclm/edgeclm/internal/coaplink", "github.com/edgeclm/edgeclm/internal/scep",
}

func isNetworkCode(pkg string) bool {
	return slices.ContainsFunc(networkCode, func(never string) bool {
		return pkg == never || strings.HasSuffix(never, "/") && strings.HasPrefix(pkg, never)
	})
}

// The PKG is offline: code that speaks to a network is not even in the binary.
func TestNoNetworkCodeIsLinked(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "github.com/edgeclm/edgeclm/cmd/pkg-offline").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	if len(deps) < 50 {
		t.Fatalf("only %d packages listed", len(deps))
	}
	for _, dep := range deps {
		if isNetworkCode(dep) {
			t.Errorf("links %s", dep)
		}
	}
}

// The same of the binary itself: its symbols name the packages of its functions,
// whatever brought them in.
func TestBinaryHasNoNetworkCode(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "pkg-offline")
	cmd := exec.Command("go", "build", "-o", binary, "github.com/edgeclm/edgeclm/cmd/pkg-offline")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	linked := map[string]bool{}
	for _, s := range symbols {
		linked[packageOf(s.Name)] = true
	}
	for _, must := range []string{"main", "github.com/edgeclm/edgeclm/internal/airgap", "crypto/x509", "net"} {
		if !linked[must] {
			t.Errorf("no symbol of %s: are symbols read as they should be?", must)
		}
	}
	for pkg := range linked {
		if isNetworkCode(pkg) {
			t.Errorf("has symbols of %s", pkg)
		}
	}
	if libraries, err := f.ImportedLibraries(); err != nil || len(libraries) > 0 {
		t.Errorf("loads %v, %v", libraries, err)
	}
}

// packageOf returns the package in a symbol such as
// "github.com/a/b/c.(*T).method" or "type:.eq.net/http.T".
func packageOf(symbol string) string {
	for _, prefix := range []string{"type:.eq.", "type:.hash.", "type:", "go:itab.*", "go:itab."} {
		symbol = strings.TrimPrefix(symbol, prefix)
	}
	symbol = strings.TrimLeft(symbol, "*[]")
	path := strings.LastIndexByte(symbol[:strings.IndexAny(symbol+"(", "([,")], '/') + 1
	name, _, _ := strings.Cut(symbol[path:], ".")
	return strings.ReplaceAll(symbol[:path]+name, "%2e", ".")
}
