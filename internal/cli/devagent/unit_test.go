package devagent

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/testpeer"
)

// systemd accepts the unit without a word, and finds little to complain about
// its sandbox.
func TestServiceUnit(t *testing.T) {
	analyze := testpeer.Look(t, "systemd-analyze")
	data, err := os.ReadFile("../../../contrib/devagent.service")
	if err != nil {
		t.Fatal(err)
	}
	// The program has to be there, which it is not on this machine.
	const program = "/usr/bin/devagent"
	if strings.Count(string(data), "ExecStart="+program+" serve\n") != 1 {
		t.Errorf("ExecStart is not %s serve", program)
	}
	unit := filepath.Join(t.TempDir(), "devagent.service")
	if err := os.WriteFile(unit, []byte(strings.ReplaceAll(string(data), program, "/bin/true")), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(analyze, "verify", "--man=no", unit).CombinedOutput()
	if err != nil || strings.Contains(string(out), unit) {
		t.Errorf("verify: %v: %s", err, out)
	}
	out, err = exec.Command(analyze, "security", "--offline=true", "--no-pager", unit).CombinedOutput()
	m := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindSubmatch(out)
	if err != nil || m == nil {
		t.Fatalf("security: %v: %s", err, out)
	}
	if level, err := strconv.ParseFloat(string(m[1]), 64); err != nil || level > 2 {
		t.Errorf("exposure level %s, want at most 2", m[1])
	}
}
