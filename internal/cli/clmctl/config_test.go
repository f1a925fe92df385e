package clmctl

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/tlsprobe"
)

// load loads a configuration as a command would. Arguments that begin with
// "CLM_" are set in the environment.
func load(t testing.TB, file string, args ...string) (Config, string, error) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"CLM_DATA_DIR": dir}
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	output := clikit.FormatTable
	flags.VarP(&output, clikit.FlagOutput, "o", "")
	flags.String(clikit.FlagConfig, "", "")
	flags.String(clikit.FlagDataDir, "", "")
	flags.Int(flagConcurrency, defaultConcurrency, "")
	flags.Duration(flagTimeout, defaultTimeout, "")
	var words []string
	for _, a := range args {
		if k, v, ok := strings.Cut(a, "="); ok && strings.HasPrefix(k, "CLM_") {
			env[k] = v
		} else {
			words = append(words, strings.ReplaceAll(a, "$FILE", path))
		}
	}
	if err := flags.Parse(words); err != nil {
		t.Fatal(err)
	}
	return loadConfig(flags, clikit.Streams{Getenv: func(k string) string { return env[k] }})
}

func TestConfigDefaults(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"", "# nothing\n", "---\n"} {
		c, _, err := load(t, file)
		if err != nil {
			t.Fatal(err)
		}
		if c.Policy != enrol.DefaultPolicy() || c.Concurrency != defaultConcurrency || c.Timeout != defaultTimeout || c.Output != clikit.FormatTable {
			t.Errorf("%q: %+v", file, c)
		}
	}
}

// Flag goes before environment, environment before file, file before default;
// for each kind of value.
func TestConfigPrecedence(t *testing.T) {
	t.Parallel()
	const file = "output: yaml\nenrolment: {concurrency: 2, timeout: 2m, max_attempts: 9}\nrenewal: {window_from: 0.2}\n"
	for _, c := range []struct {
		args        []string
		output      clikit.Format
		concurrency int
		timeout     time.Duration
		from        float64
	}{
		{nil, "yaml", 2, 2 * time.Minute, 0.2},
		{[]string{"CLM_OUTPUT=csv", "CLM_ENROLMENT_CONCURRENCY=3", "CLM_ENROLMENT_TIMEOUT=3m", "CLM_RENEWAL_WINDOW_FROM=0.3"}, "csv", 3, 3 * time.Minute, 0.3},
		{[]string{"-o", "json", "--concurrency=4", "--timeout=4m"}, "json", 4, 4 * time.Minute, 0.2},
		{[]string{"CLM_OUTPUT=csv", "CLM_ENROLMENT_CONCURRENCY=3", "CLM_ENROLMENT_TIMEOUT=3m", "-o", "json", "--concurrency=4", "--timeout=4m"}, "json", 4, 4 * time.Minute, 0.2},
	} {
		got, _, err := load(t, file, c.args...)
		if err != nil {
			t.Fatal(err)
		}
		if got.Output != c.output || got.Concurrency != c.concurrency || got.Timeout != c.timeout || got.Policy.Window.From != c.from {
			t.Errorf("%v: %+v", c.args, got)
		}
		if got.Policy.MaxAttempts != 9 || got.Policy.HookTries != enrol.DefaultPolicy().HookTries {
			t.Errorf("%v: %+v", c.args, got.Policy)
		}
	}
}

// Every setting of the file and of the environment reaches the place where it
// works.
func TestConfigReachesEverySetting(t *testing.T) {
	t.Parallel()
	base, _, err := load(t, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range settings() {
		var text string
		switch x.value.(type) {
		case bool:
			text = "true"
		case int:
			text = "7"
		case float64:
			text = "0.4"
		case time.Duration:
			text = "59m"
		default:
			text = "json"
		}
		switch x.key {
		case keyCARate:
			text = "7/h"
		case keyBreakerFirst: // not longer than the longest
			text = "7m"
		}
		section, name, nested := strings.Cut(x.key, ".")
		file := section + ": " + text + "\n"
		if nested {
			file = section + ": {" + name + ": " + text + "}\n"
		}
		fromFile, _, err := load(t, file)
		if err != nil {
			t.Fatalf("%s: %v", x.key, err)
		}
		fromEnvironment, _, err := load(t, "", x.variable()+"="+text)
		if err != nil {
			t.Fatalf("%s: %v", x.variable(), err)
		}
		if flat(fromFile) == flat(base) {
			t.Errorf("%s in the file changes nothing", x.key)
		}
		if flat(fromFile) != flat(fromEnvironment) {
			t.Errorf("%s: file %+v, environment %+v", x.key, fromFile, fromEnvironment)
		}
	}
}

// flat is a configuration without what only the file can say.
func flat(c Config) string {
	c.Profiles, c.ProbeAllow = nil, tlsprobe.Allowed{}
	return fmt.Sprintf("%+v", c)
}

// Every setting is described in the documentation.
func TestConfigIsDocumented(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range settings() {
		if !strings.Contains(string(doc), "`"+x.key+"`") {
			t.Errorf("docs/configuration.md does not describe %s", x.key)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ file, args, want string }{
		{"outputs: json\n", "", `line 1: unknown key "outputs"`},
		{"enrolment:\n  concurency: 3\n", "", `line 2: unknown key "concurency"`},
		{"enrolment:\n  floor: soon\n", "", "line 2: cannot unmarshal `soon` into a duration"},
		{"enrolment: {concurrency: many}\n", "", "line 1: cannot unmarshal `many` into int"},
		{"enrolment: {concurrency: 0}\n", "", "enrolment.concurrency must be at least 1"},
		{"enrolment: {concurrency: 2000}\n", "", "at most 1024"},
		{"enrolment: {timeout: -1s}\n", "", "enrolment.timeout must be longer than -1s"},
		{"enrolment: {timeout: 0s}\n", "", "enrolment.timeout must be longer than 0s"},
		{"enrolment: {retry_first: 2h}\n", "", "enrolment.retry_longest is shorter than enrolment.retry_first"},
		{"enrolment: {breaker_first: 11m}\n", "", "enrolment.breaker_longest is shorter than enrolment.breaker_first"},
		{"enrolment: {breaker_longest: 59s}\n", "", "enrolment.breaker_longest is shorter than enrolment.breaker_first"},
		{"enrolment: {breaker_longest: 25h}\n", "", "enrolment.breaker_longest: at most 24h"},
		{"enrolment: {breaker_first: 0s}\n", "", "enrolment.breaker_first must be longer than 0s"},
		{"enrolment: {breaker_strikes: 0}\n", "", "enrolment.breaker_strikes must be at least 1"},
		{"enrolment: {breaker_strikes: 1001}\n", "", "at most 1000 devices"},
		{"enrolment: {breaker_rejected: 1001}\n", "", "at most 1000 devices"},
		{"enrolment: {breaker_devices: 1001}\n", "", "at most 1000 devices"},
		{"renewal: {window_from: 0.6}\n", "", "0 < from <= to < 1"},
		{"renewal: {window_to: 1}\n", "", "0 < from <= to < 1"},
		{"output: xml\n", "", `"xml" is none of`},
		{"log_format: xml\n", "", `"xml" is neither text nor json`},
		{"output: [", "", "line 1"},
		{"a: 1\n---\nb: 2\n", "", `unknown key "a"`},
		{"output: json\n---\noutput: csv\n", "", "a second YAML document"},
		{"data_dir: /x\n", "", "data_dir only works in a file that is named with --config"},
		{"", "CLM_ENROLMENT_CONCURRENCY=x", `CLM_ENROLMENT_CONCURRENCY: "x" is not a number`},
		{"", "CLM_ENROLMENT_FLOOR=10", `CLM_ENROLMENT_FLOOR: "10" is not a duration`},
		{"", "CLM_QUIET=perhaps", `CLM_QUIET: "perhaps" is not a truth value`},
		{"", "CLM_RENEWAL_WINDOW_TO=half", `CLM_RENEWAL_WINDOW_TO: "half" is not a fraction`},
		{"", "--config=/nowhere/x.yaml", "no such file"},
		{"", "CLM_CONFIG=/nowhere/x.yaml", "no such file"},
		{"profiles: [{key: rsa-2048}]\n", "", "profile 1 has no name"},
		{"profiles: [{name: a}, {name: a}]\n", "", `profile 2: the name "a" is taken`},
		{"profiles: [{name: a, key: rsa-512}]\n", "", `profile "a": not a certificate profile`},
		{"profiles: [{name: a, subject: {XX: y}}]\n", "", `subject: "XX" is none of`},
		{"profiles: [{name: a, subject: {O: ''}}]\n", "", "subject attribute O"},
		{"profiles: [{name: a, sans: ['{name}']}]\n", "", "has no kind"},
		{"profiles: [{name: a, sans: ['ip:{name}']}]\n", "", "IP address"},
		{"profiles: [{name: a, sans: ['cn:x']}]\n", "", "belongs into the subject"},
		{"profiles: [{name: a, key_usage: [sign]}]\n", "", `key usage "sign"`},
		{"profiles: [{name: a, match: {'a b': c}}]\n", "", "match: "},
		{"profiles: [{name: a, endpoint: 'gateway'}]\n", "", "endpoint: \"gateway\" is not host:port"},
		{"probe: {allow: ['10.0.0.0/40']}\n", "", "probe.allow: "},
	} {
		_, _, err := load(t, c.file, strings.Fields(c.args)...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q %s: got %v, want %q", c.file, c.args, err, c.want)
		}
		if err != nil && strings.ContainsAny(err.Error(), "\n") {
			t.Errorf("%q: more than one line: %v", c.file, err)
		}
	}
}

func TestConfigDataDir(t *testing.T) {
	t.Parallel()
	if _, dir, err := load(t, "data_dir: /var/lib/x\n", "--config=$FILE", "CLM_DATA_DIR="); err != nil || dir != "/var/lib/x" {
		t.Errorf("from the file: %s, %v", dir, err)
	}
	if _, dir, err := load(t, "data_dir: /var/lib/x\n", "--config=$FILE", "CLM_DATA_DIR=/var/lib/y"); err != nil || dir != "/var/lib/y" {
		t.Errorf("environment over file: %s, %v", dir, err)
	}
	if _, dir, err := load(t, "", "--data-dir=/var/lib/z"); err != nil || dir != "/var/lib/z" {
		t.Errorf("flag over environment: %s, %v", dir, err)
	}
}

// Labels keep their case, which viper alone would not do.
func TestConfigProfiles(t *testing.T) {
	t.Parallel()
	c, _, err := load(t, `
profiles:
  - name: press
    match: {Line: "3"}
    key: ecdsa-p384
    subject: {CN: "{name}", O: Example Works, C: ES}
    sans: ["dns:{name}.example", "uri:urn:example:{name}", "ip:192.0.2.1"]
    key_usage: [digitalSignature]
    ext_key_usage: [clientAuth, serverAuth]
  - name: other
`)
	if err != nil {
		t.Fatal(err)
	}
	p := fleet.SelectProfile(c.Profiles, fleet.Device{Name: "plc-1", Labels: map[string]string{"Line": "3"}})
	if p.Name != "press" {
		t.Fatalf("profile %+v", p)
	}
	p, err = p.For(fleet.Device{Name: "plc-1"})
	if err != nil {
		t.Fatal(err)
	}
	if p.Subject[0].Type != "C" || p.Subject[2].Value != "plc-1" || p.SANs[1].String() != "uri:urn:example:plc-1" || p.ExtKeyUsage[1] != "serverAuth" {
		t.Errorf("%+v", p)
	}
	if p := fleet.SelectProfile(c.Profiles, fleet.Device{Name: "plc-1", Labels: map[string]string{"line": "3"}}); p.Name != "other" {
		t.Errorf("the label's case does not count: %s", p.Name)
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("output: json\nenrolment: {concurrency: 3, floor: 10m}\n"))
	f.Add([]byte("profiles: [{name: a, match: {k: v}, sans: ['dns:{name}'], subject: {O: x}}]\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c fileConfig
		if err := clikit.DecodeConfig(data, &c); err != nil {
			return
		}
		profiles, err := c.profiles()
		if err != nil {
			return
		}
		for _, p := range profiles {
			if p.Name == "" || p.Validate() != nil {
				if _, err := p.For(fleet.Device{Name: "name", Asset: "asset"}); p.Name == "" || err != nil {
					t.Errorf("accepted %+v", p)
				}
			}
		}
	})
}
