package pkgoffline_test

import (
	"os/exec"
	"strings"
	"testing"
)

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
		for _, never := range []string{"net/http", "crypto/tls", "github.com/pion/", "github.com/plgd-dev/", "github.com/spf13/viper", "github.com/smallstep/"} {
			if dep == never || strings.HasSuffix(never, "/") && strings.HasPrefix(dep, never) {
				t.Errorf("links %s", dep)
			}
		}
	}
}
