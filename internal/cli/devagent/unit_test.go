package devagent

import (
	"os"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/testpeer"
)

// systemd accepts the unit without a word, and finds little to complain about
// its sandbox.
func TestServiceUnit(t *testing.T) {
	const unit, program = "../../../contrib/devagent.service", "/usr/bin/devagent"
	data, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(data), "ExecStart="+program+" serve\n") != 1 {
		t.Errorf("ExecStart is not %s serve", program)
	}
	testpeer.CheckUnits(t, program, 2, unit)
}
