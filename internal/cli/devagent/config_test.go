package devagent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
)

// parse loads the configuration that serve would have with these arguments.
func parse(t *testing.T, dir string, env map[string]string, args ...string) (config, error) {
	t.Helper()
	s := clikit.Streams{Getenv: func(name string) string { return env[name] }}
	root := newRoot(s, Deps{})
	cmd, rest, err := root.Find(append([]string{"serve"}, args...))
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.ParseFlags(append([]string{"--data-dir", dir}, rest...)); err != nil {
		t.Fatal(err)
	}
	return loadConfig(cmd.Flags(), s)
}

func TestConfigPrecedence(t *testing.T) {
	dir := t.TempDir()
	c, err := parse(t, dir, nil)
	if err != nil || c.Listen != ":5684" || c.HookTimeout != 30*time.Second || c.LogFormat != "text" || c.DataDir != dir {
		t.Errorf("defaults: %+v, %v", c, err)
	}
	file := "listen: file:1\nhook_timeout: 10s\nlog_format: json\nlab_allow_rsa_1024: true\n"
	if err := os.WriteFile(filepath.Join(dir, configFile), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err = parse(t, dir, nil)
	if err != nil || c.Listen != "file:1" || c.HookTimeout != 10*time.Second || c.LogFormat != "json" || !c.LabAllowRSA1024 || c.Key != "ecdsa-p256" {
		t.Errorf("file: %+v, %v", c, err)
	}
	env := map[string]string{"DEVAGENT_LISTEN": "env:1", "DEVAGENT_HOOK_TIMEOUT": "20s", "DEVAGENT_LOG_FORMAT": "text", "DEVAGENT_LAB_ALLOW_RSA_1024": "false"}
	c, err = parse(t, dir, env)
	if err != nil || c.Listen != "env:1" || c.HookTimeout != 20*time.Second || c.LogFormat != "text" || c.LabAllowRSA1024 {
		t.Errorf("environment: %+v, %v", c, err)
	}
	c, err = parse(t, dir, env, "--listen", "flag:1", "--hook-timeout", "30s", "--log-format", "json", "--lab-allow-rsa-1024")
	if err != nil || c.Listen != "flag:1" || c.HookTimeout != 30*time.Second || c.LogFormat != "json" || !c.LabAllowRSA1024 {
		t.Errorf("flags: %+v, %v", c, err)
	}
}

func TestConfigMistakes(t *testing.T) {
	for _, test := range []struct{ file, env, want string }{
		{"listen: a:1\nlissten: b:1\n", "", `config.yaml: line 2: unknown key "lissten"`},
		{"hook_timeout: soon\n", "", "line 1: cannot unmarshal `soon` into a duration like 90s or 10m (hook_timeout)"},
		{"key: ecdsa-p256\n---\nkey: rsa-2048\n", "", "a second YAML document"},
		{"", "DEVAGENT_HOOK_TIMEOUT=soon", "environment variable DEVAGENT_HOOK_TIMEOUT: "},
		{"", "DEVAGENT_LOG_FORMAT=xml", `log_format: "xml" is neither text nor json`},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, configFile), []byte(test.file), 0o600); err != nil {
			t.Fatal(err)
		}
		name, value, _ := strings.Cut(test.env, "=")
		if _, err := parse(t, dir, map[string]string{name: value}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q, %q: %v, want %s", test.file, test.env, err, test.want)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("listen: 127.0.0.1:0\nkey: rsa-2048\nhook_timeout: 10s\n"))
	f.Add([]byte("consumers: [{name: web, dir: /etc/web, mode: 0644, links: {key.pem: /etc/k}, hook: 'a b'}]\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c config
		c.common()
		c.serving()
		c.keys()
		c.sealing()
		if clikit.DecodeConfig(data, &c) == nil && c.validate() == nil && (c.HookTimeout <= 0 || c.Key == "") {
			t.Errorf("accepted %+v", c)
		}
	})
}
