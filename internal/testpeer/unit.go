package testpeer

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// CheckUnits has systemd verify units, all together, and say how exposed their
// services are, which must be at most this. The program that they start, which
// need not be on this machine, is replaced by another.
func CheckUnits(t *testing.T, program string, exposure float64, files ...string) {
	t.Helper()
	analyze := Look(t, "systemd-analyze")
	dir := t.TempDir()
	var units []string
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		unit := filepath.Join(dir, filepath.Base(file))
		if err := os.WriteFile(unit, []byte(strings.ReplaceAll(string(data), program, "/bin/true")), 0o600); err != nil {
			t.Fatal(err)
		}
		units = append(units, unit)
	}
	out, err := exec.CommandContext(t.Context(), analyze, append([]string{"verify", "--man=no"}, units...)...).CombinedOutput()
	if err != nil || strings.Contains(string(out), dir) {
		t.Errorf("verify: %v: %s", err, out)
	}
	for _, unit := range units {
		if filepath.Ext(unit) != ".service" {
			continue
		}
		out, err := exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--no-pager", unit).CombinedOutput()
		m := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindSubmatch(out)
		if err != nil || m == nil {
			t.Fatalf("security: %v: %s", err, out)
		}
		if level, err := strconv.ParseFloat(string(m[1]), 64); err != nil || level > exposure {
			t.Errorf("%s: exposure level %s, want at most %v", filepath.Base(unit), m[1], exposure)
		}
	}
}
