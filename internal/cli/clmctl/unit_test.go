package clmctl

import (
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/testpeer"
)

const contrib = "../../../contrib/"

// systemd accepts the units without a word, and finds little to complain about
// their sandboxes.
func TestServiceUnits(t *testing.T) {
	testpeer.CheckUnits(t, "/usr/bin/clmctl", 2, contrib+"edgeclm-run.service", contrib+"edgeclm-renew.service", contrib+"edgeclm-renew.timer")
}

// The commands of the units and of the cron file are commands that there are,
// with flags that there are.
func TestContribCommands(t *testing.T) {
	t.Parallel()
	for file, pattern := range map[string]string{
		"edgeclm-run.service":   `(?m)^ExecStart=/usr/bin/clmctl (.*)$`,
		"edgeclm-renew.service": `(?m)^ExecStart=/usr/bin/clmctl (.*)$`,
		"edgeclm.cron":          `(?m)^\*/5 \* \* \* \* edgeclm clmctl ([^>]*) >/dev/null$`,
	} {
		data, err := os.ReadFile(contrib + file)
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(pattern).FindSubmatch(data)
		if m == nil {
			t.Errorf("%s: no command of clmctl", file)
			continue
		}
		root := newRoot(clikit.Streams{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard}, Deps{})
		cmd, args, err := root.Find(strings.Fields(string(m[1])))
		if err == nil && cmd == root {
			t.Errorf("%s: %s is no command", file, m[1])
		}
		if err == nil {
			err = cmd.ParseFlags(args)
		}
		if err != nil {
			t.Errorf("%s: %s: %v", file, m[1], err)
		}
	}
}
