// Package layout holds tests of what the programs are made of. The linter sees
// what each package imports; these see what is linked in the end.
package layout

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/edgeclm/edgeclm/"

func TestProgramsLinkOnly(t *testing.T) {
	for program, unwanted := range map[string][]string{
		// The PKG's machine is connected to nothing; its program could not.
		"pkg-offline": {
			"net/http", "crypto/tls", "github.com/pion", "github.com/plgd-dev", "github.com/prometheus", "github.com/spf13/viper", "modernc.org",
			module + "internal/scep", module + "internal/coaplink", module + "internal/labpeer",
		},
		// The device speaks CoAP and keeps files.
		"devagent": {
			"modernc.org", "github.com/prometheus", "github.com/smallstep", "github.com/spf13/viper",
			module + "internal/scep", module + "internal/labca", module + "internal/labpeer", module + "internal/pkgen", module + "internal/store",
		},
		"clmctl": {module + "internal/pkgen", module + "internal/testpeer", "testing"},
	} {
		t.Run(program, func(t *testing.T) {
			t.Parallel()
			list := exec.CommandContext(t.Context(), "go", "list", "-deps", module+"cmd/"+program)
			out, err := list.Output()
			if err != nil {
				t.Fatalf("go list: %v", err)
			}
			deps := strings.Fields(string(out))
			if len(deps) < 50 {
				t.Fatalf("%d packages cannot be all", len(deps))
			}
			for _, dep := range deps {
				for _, prefix := range unwanted {
					if dep == prefix || strings.HasPrefix(dep, prefix+"/") {
						t.Errorf("%s links %s", program, dep)
					}
				}
			}
		})
	}
}
