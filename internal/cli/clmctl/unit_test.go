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

// What alerts and their document tell an operator to type are commands that
// there are, with flags that there are.
func TestAdvisedCommands(t *testing.T) {
	t.Parallel()
	const word = `(?:--)?[a-z_-]+|[A-Z]+`
	for file, pattern := range map[string]string{
		contrib + "prometheus/edgeclm.rules.yml": `clmctl\s+((?:` + word + `)(?:\s+(?:` + word + `))*)`,
		contrib + "grafana/edgeclm.json":         `clmctl ((?:` + word + `)(?: (?:` + word + `))*)`,
		"../../../docs/metrics.md":               "`clmctl ([^`]+)`",
	} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		advice := regexp.MustCompile(pattern).FindAllSubmatch(data, -1)
		if len(advice) == 0 {
			t.Errorf("%s: no command", file)
		}
		for _, m := range advice {
			words := strings.Fields(strings.ReplaceAll(string(m[1]), "TIME", "2030-01-01T00:00:00Z"))
			root := newRoot(clikit.Streams{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard}, Deps{})
			cmd, args, err := root.Find(words)
			if err == nil && cmd.HasSubCommands() {
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
}
