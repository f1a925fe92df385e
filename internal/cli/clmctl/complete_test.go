package clmctl_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/store"
	"github.com/edgeclm/edgeclm/internal/store/sqlite"
	"github.com/edgeclm/edgeclm/internal/testpeer"
)

const bashCompletion = "/usr/share/bash-completion/bash_completion"

// plantForCompletion makes an inventory of a few devices.
func plantForCompletion(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	s, err := sqlite.Open(t.Context(), filepath.Join(dir, "inventory.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := store.Delivery{Source: "test", Assets: []store.Asset{{Device: "hw:1", Asset: "PRESS"}}}
	for i, name := range []string{"plc-1", "plc-2", "hw:1"} {
		d.Rows = append(d.Rows, store.Row{
			Identity: ibc.Identity{Role: ibc.RoleDevice, Name: name, Epoch: 1, Generation: 1}, LedgerIndex: uint64(i + 1),
			Labels: map[string]string{"line": name[len(name)-1:], "hall": "north"},
		})
	}
	if _, err := s.PutDevices(context.Background(), d); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestBashCompletes types lines into a real bash that has read the committed
// script.
func TestBashCompletes(t *testing.T) {
	t.Parallel()
	bash := testpeer.Look(t, "bash")
	if _, err := os.Stat(bashCompletion); err != nil {
		testpeer.Missing(t, "the Debian package bash-completion is not installed")
	}
	dir := plantForCompletion(t)
	script, err := filepath.Abs("../../../completions/clmctl.bash")
	if err != nil {
		t.Fatal(err)
	}
	before := read(t, filepath.Join(dir, "inventory.db"))
	for line, want := range map[string]string{
		"clmctl device show pl":                     "plc-1 plc-2",
		"clmctl device show plc-1 ":                 "",
		"clmctl renew plc-1 pl":                     "plc-2",
		"clmctl device show PR":                     "PRESS",
		"clmctl enrol -l ":                          "hall= line=",
		"clmctl enrol --selector li":                "line=",
		"clmctl enrol --selector line=":             "1 2",
		"clmctl doctor --device plc-":               "plc-1 plc-2",
		"clmctl --data-dir /nowhere device show pl": "",
		"clmctl device hist":                        "history",
	} {
		if got := typed(t, bash, script, dir, line); got != want {
			t.Errorf("%q offers %q, want %q", line, got, want)
		}
	}
	if after := read(t, filepath.Join(dir, "inventory.db")); after != before {
		t.Error("completion changed the inventory")
	}
}

// typed returns what the completion function makes of a line whose end is
// where the cursor is.
func typed(t *testing.T, bash, script, dir, line string) string {
	t.Helper()
	const program = `
source "$1"; source "$2"
COMP_LINE=$3 COMP_POINT=${#3} COMP_TYPE=9 COMP_KEY=9
# As readline does: words are split at blanks, and at = and :.
text=${COMP_LINE//=/ = }; text=${text//:/ : }
read -r -a COMP_WORDS <<< "$text"
[[ $COMP_LINE == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
__start_clmctl
printf '%s\n' "${COMPREPLY[@]}"
`
	cmd := exec.Command(bash, "--norc", "-c", program, "bash", bashCompletion, script, line)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), // where TestMain put clmctl
		"HOME=" + t.TempDir(), "CLM_DATA_DIR=" + dir}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
