package clmctl

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
)

func readTestSources(t *testing.T, file string, env map[string]string) sources {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	flags.String(clikit.FlagConfig, "", "")
	if err := flags.Parse([]string{"--config", path}); err != nil {
		t.Fatal(err)
	}
	x, err := readSources(flags, clikit.Streams{Getenv: func(k string) string { return env[k] }})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// Whatever the file may say, and whatever is a setting, is shown.
func TestConfigShowHasEverySetting(t *testing.T) {
	t.Parallel()
	x := readTestSources(t, "", map[string]string{"CLM_DATA_DIR": "/x"})
	var keys []string
	x.effective().each(nil, func(path keyPath, _ any) { keys = append(keys, path.String()) })
	for _, known := range settings() {
		if !slices.Contains(keys, known.key) {
			t.Errorf("%s is not shown", known.key)
		}
	}
	for _, key := range []string{"data_dir", "probe.allow", "profiles"} {
		if !slices.Contains(keys, key) {
			t.Errorf("%s is not shown", key)
		}
	}
}

func TestConfigOrigin(t *testing.T) {
	t.Parallel()
	x := readTestSources(t, `# a comment
enrolment: {floor: 5m}
probe:
  allow: [10.0.0.0/8]
profiles:
  - &first
    name: a
    match: {plant.example/line: "3"}
  - *first
`, map[string]string{"CLM_DATA_DIR": "/x", "CLM_CA_TIMEOUT": "9s"})
	got := map[string]string{}
	x.effective().each(nil, func(path keyPath, value any) {
		o := x.origin(path)
		got[path.String()] = cell(value) + " " + o.kind + " " + strings.TrimPrefix(o.at, x.path)
	})
	for key, want := range map[string]string{
		"data_dir":                             "/x environment CLM_DATA_DIR",
		"enrolment.floor":                      "5m file :2",
		"enrolment.poll":                       "5m default ",
		"ca.timeout":                           "9s environment CLM_CA_TIMEOUT",
		"probe.allow":                          "10.0.0.0/8 file :4",
		"profiles[0].name":                     "a file :7",
		"profiles[1].name":                     "a file :7",
		"profiles[0].endpoint":                 " default ",
		"profiles[0].sans":                     " default ",
		"profiles[0].match.plant.example/line": "3 file :8",
	} {
		if got[key] != want {
			t.Errorf("%s: %q, want %q", key, got[key], want)
		}
	}
}

// What is shown as YAML is a configuration, and the same one.
func TestConfigShowReadsBack(t *testing.T) {
	t.Parallel()
	x := readTestSources(t, "data_dir: /x\nenrolment: {floor: 90s, timeout: 36h}\nprofiles: [{name: a, sans: ['dns:{name}'], subject: {O: X}}]\n", nil)
	shown := func(x sources) string {
		var b bytes.Buffer
		if err := clikit.Render(&b, clikit.FormatYAML, x.effective(), clikit.Table{}); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	first := shown(x)
	again := readTestSources(t, first, nil)
	if second := shown(again); second != first {
		t.Errorf("%s\nbecomes\n%s", first, second)
	}
	if _, err := again.file.profiles(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(first, "floor: 1m30s") || !strings.Contains(first, "timeout: 36h\n") {
		t.Error(first)
	}
}

func TestConfigShowsNoSecret(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, text, want string }{
		{"url", "https://user:hush@hook.example/x?key=hush", "https://user:xxxxx@hook.example/x?..."},
		{"url", "https://hook.example/x", "https://hook.example/x"},
		{"password", "hush", "(not shown)"},
		{"password", "", ""},
		{"password_file", "/etc/hush", "/etc/hush"},
	} {
		if got := withoutSecret(c.name, c.text); got != c.want {
			t.Errorf("%s: %s becomes %s, want %s", c.name, c.text, got, c.want)
		}
	}
}

func TestShortDuration(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0s", 10 * time.Second: "10s", time.Minute: "1m", 90 * time.Second: "1m30s", time.Hour: "1h", 90 * time.Minute: "1h30m", 100*time.Hour + 10*time.Second: "100h0m10s",
	} {
		if got := shortDuration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

// A value that makes no sense is told with its line.
func TestConfigErrorsSayWhere(t *testing.T) {
	t.Parallel()
	if _, _, err := load(t, "quiet: true\nenrolment:\n  poll: 1m\n  concurrency: 0\n"); err == nil || !strings.Contains(err.Error(), "config.yaml: line 4: enrolment.concurrency must be at least 1") {
		t.Error(err)
	}
	if _, _, err := load(t, "", "CLM_ENROLMENT_CONCURRENCY=0"); err == nil || !strings.Contains(err.Error(), "environment variable CLM_ENROLMENT_CONCURRENCY: enrolment.concurrency must be") {
		t.Error(err)
	}
}
