package clikit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"go.yaml.in/yaml/v3"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
)

// streams are in memory.
func streams(in string, env map[string]string) (clikit.Streams, *bytes.Buffer, *bytes.Buffer) {
	var out, errs bytes.Buffer
	return clikit.Streams{
		In: strings.NewReader(in), Out: &out, Err: &errs,
		Getenv: func(name string) string { return env[name] },
	}, &out, &errs
}

func TestExitCodes(t *testing.T) {
	base := errors.New("base")
	for _, tc := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{base, 1},
		{clikit.Usage("x"), 2},
		{fmt.Errorf("wrapped: %w", clikit.WithCode(base, clikit.ExitLocked)), 4},
		{clikit.WithHint(clikit.WithCode(base, clikit.ExitUnavailable), "h"), 5},
		{clikit.WithCode(clikit.Usage("x"), clikit.ExitSomeFailed), 3},
		{clikit.WithCode(nil, 3), 0},
		{clikit.WithHint(nil, "h"), 0},
	} {
		if got := clikit.ExitCode(tc.err); got != tc.want {
			t.Errorf("%v: %d, want %d", tc.err, got, tc.want)
		}
	}
	if !errors.Is(clikit.WithHint(clikit.WithCode(base, 2), "h"), base) {
		t.Error("the cause is lost")
	}
}

func TestReportIsOneLineEach(t *testing.T) {
	var out bytes.Buffer
	err := clikit.WithHint(fmt.Errorf("first\nsecond \x1b[2J\u202e%w", errors.New("third\r")), "do\nthis")
	clikit.Report(&out, "prog", err)
	if got, want := out.String(), "prog: error: first; second [2Jthird\nprog: hint: do; this\n"; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// execute runs a small program and returns exit code and streams.
func execute(args ...string) (int, string, string) {
	s, out, errs := streams("", nil)
	var common clikit.Common
	root := &cobra.Command{Use: "prog"}
	common.Register(root)
	common.RegisterData(root.PersistentFlags())
	group := &cobra.Command{Use: "group"}
	run := &cobra.Command{Use: "run NAME", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		if args[0] == "fail" {
			return errors.New("it failed")
		}
		_, err := fmt.Fprintln(cmd.OutOrStdout(), "ran", args[0])
		return err
	}}
	group.AddCommand(run)
	root.AddCommand(group, clikit.VersionCommand(&common, "prog"))
	code := clikit.Execute(root, args, s)
	return code, out.String(), errs.String()
}

func TestExecute(t *testing.T) {
	for _, tc := range []struct {
		args      string
		code      int
		out, errs string // contained
	}{
		{"group run x", 0, "ran x\n", ""},
		{"group run fail", 1, "", "prog: error: it failed\n"},
		{"group run", 2, "", "prog: hint: see prog --help\n"},
		{"group run a b", 2, "", "prog: error: accepts 1 arg(s)"},
		{"", 2, "", "prog: error: prog needs a command\n"},
		{"group", 2, "", "prog: error: prog group needs a command\n"},
		{"group rum", 2, "", "prog: hint: did you mean run?"},
		{"nonsense", 2, "", `prog: error: unknown command "nonsense" for prog`},
		{"--nonsense", 2, "", "prog: error: unknown flag: --nonsense\n"},
		{"group run x -o xml", 2, "", "table, wide, json, yaml, csv"},
		{"group run x --log-format xml", 2, "", "neither text nor json"},
		{"version -o json", 0, `"version"`, ""},
		{"version", 0, "prog ", ""},
		{"--help", 0, "Usage:", ""},
		{"group --help", 0, "run", ""},
		{"completion bash", 0, "bash completion", ""},
	} {
		code, out, errs := execute(strings.Fields(tc.args)...)
		if code != tc.code || !strings.Contains(out, tc.out) || !strings.Contains(errs, tc.errs) || (code == 0) != (errs == "") {
			t.Errorf("%q: code %d\nout %q\nerr %q", tc.args, code, out, errs)
		}
		if lines := strings.Count(errs, "\n"); lines > 2 {
			t.Errorf("%q: %d lines of error: %q", tc.args, lines, errs)
		}
	}
}

func TestResolveDataDir(t *testing.T) {
	root := os.Geteuid() == 0
	for _, tc := range []struct {
		name             string
		kind             string
		flag, configured string
		env              map[string]string
		asRoot, asUser   string // "" in both: an error
	}{
		{"flag first", clikit.DataCLM, "f/", "c", map[string]string{"CLM_DATA_DIR": "e"}, "f", "f"},
		{"then environment", clikit.DataCLM, "", "c", map[string]string{"CLM_DATA_DIR": "e"}, "e", "e"},
		{"of the agent", clikit.DataAgent, "", "", map[string]string{"CLM_DATA_DIR": "e", "DEVAGENT_DATA_DIR": "a"}, "a", "a"},
		{"then the file", clikit.DataAgent, "", "c", nil, "c", "c"},
		{"then XDG", clikit.DataAgent, "", "", map[string]string{"XDG_STATE_HOME": "/x", "HOME": "/h"}, "/var/lib/edgeclm/agent", "/x/edgeclm/agent"},
		{"then home", clikit.DataCLM, "", "", map[string]string{"XDG_STATE_HOME": "relative", "HOME": "/h"}, "/var/lib/edgeclm/clm", "/h/.local/state/edgeclm/clm"},
		{"nothing", clikit.DataCLM, "", "", nil, "/var/lib/edgeclm/clm", ""},
	} {
		s, _, _ := streams("", tc.env)
		want := tc.asUser
		if root {
			want = tc.asRoot
		}
		got, err := clikit.ResolveDataDir(tc.kind, tc.flag, tc.configured, s)
		if got != want || (want == "") != (clikit.ExitCode(err) == clikit.ExitUsage) {
			t.Errorf("%s: %q, %v; want %q", tc.name, got, err, want)
		}
	}
}

func TestRender(t *testing.T) {
	value := map[string]any{"name": "plc-1", "n": 3, "text": "3", "none": nil, "list": []string{}, "yes": "yes", "nested": map[string]any{"t": "2026-01-02T03:04:05Z", "m": "<&>"}}
	table := clikit.Table{
		Columns: []clikit.Column{{Name: "name"}, {Name: "last_error"}, {Name: "sha256", Wide: true}},
		Rows:    [][]string{{"plc-1", "", "ab"}, {"plc-0002", "a\nb\x1b[31m", "cd"}},
	}
	render := func(f clikit.Format) string {
		var out bytes.Buffer
		if err := clikit.Render(&out, f, value, table); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	for f, want := range map[clikit.Format]string{
		clikit.FormatTable: "NAME      LAST ERROR\nplc-1     -\nplc-0002  a; b[31m\n",
		clikit.FormatWide:  "NAME      LAST ERROR  SHA256\nplc-1     -           ab\nplc-0002  a; b[31m    cd\n",
		clikit.FormatCSV:   "name,last_error,sha256\nplc-1,,ab\nplc-0002,\"a\nb\x1b[31m\",cd\n",
	} {
		if got := render(f); got != want {
			t.Errorf("%s:\n%q\nwant\n%q", f, got, want)
		}
	}
	if got := render(clikit.FormatJSON); !strings.Contains(got, `"<&>"`) {
		t.Errorf("JSON escapes for HTML: %s", got)
	}
	// JSON and YAML say the same, types included.
	var fromJSON, fromYAML map[string]any
	if err := json.Unmarshal([]byte(render(clikit.FormatJSON)), &fromJSON); err != nil {
		t.Fatal(err)
	}
	text := render(clikit.FormatYAML)
	if err := yaml.Unmarshal([]byte(text), &fromYAML); err != nil {
		t.Fatal(err)
	}
	back, err := json.Marshal(fromYAML)
	if err != nil {
		t.Fatal(err)
	}
	want, err := json.Marshal(fromJSON)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(back, want) {
		t.Errorf("YAML says %s\nJSON says %s\n%s", back, want, text)
	}
	if strings.Contains(text, "{\"") {
		t.Errorf("YAML in flow style:\n%s", text)
	}
}

func TestReadSecret(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	long := strings.Repeat("x", 4096)
	for _, tc := range []struct {
		name, path, in, want string
		warns                bool
		fails                string
	}{
		{"file", file("a", "secret\n", 0o600), "", "secret", false, ""},
		{"no newline", file("b", "secret", 0o600), "", "secret", false, ""},
		{"one newline only", file("c", "secret\n\n", 0o600), "", "secret\n", false, ""},
		{"Windows", file("d", "secret\r\n", 0o600), "", "secret", false, ""},
		{"blanks stay", file("e", " secret \n", 0o600), "", " secret ", false, ""},
		{"standard input", "-", "secret\n", "secret", false, ""},
		{"readable by others", file("f", "secret\n", 0o644), "", "secret", true, ""},
		{"longest", file("g", long+"\r\n", 0o600), "", long, false, ""},
		{"too long", file("h", long+"x\n", 0o600), "", "", false, "more than 4096 bytes"},
		{"much too long", "-", strings.Repeat("x", 1<<20), "", false, "more than 4096 bytes"},
		{"empty", file("i", "\n", 0o600), "", "", false, "empty"},
		{"missing", filepath.Join(dir, "none"), "", "", false, "no such file"},
	} {
		s, _, errs := streams(tc.in, nil)
		got, err := clikit.ReadSecret(context.Background(), s, clikit.Secret{Path: tc.path, What: "passphrase", Program: "prog"})
		if tc.fails != "" {
			if clikit.ExitCode(err) != clikit.ExitUsage || !strings.Contains(err.Error(), tc.fails) || strings.Contains(err.Error(), "xxx") {
				t.Errorf("%s: error %v, want %q", tc.name, err, tc.fails)
			}
			continue
		}
		if err != nil || string(got) != tc.want || (errs.Len() > 0) != tc.warns {
			t.Errorf("%s: %q, %v, stderr %q", tc.name, got, err, errs)
		}
	}
	s, _, _ := streams("", nil)
	_, err := clikit.ReadSecret(context.Background(), s, clikit.Secret{What: "passphrase", Flag: "--passphrase-file", NoInput: true})
	if clikit.ExitCode(err) != clikit.ExitUsage {
		t.Errorf("--no-input: %v", err)
	}
}

func TestReadSecretFromFIFO(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		f, err := os.OpenFile(fifo, os.O_WRONLY, 0)
		if err == nil {
			_, err = f.WriteString("sec")
		}
		if err == nil {
			_, err = f.WriteString("ret\n")
		}
		done <- errors.Join(err, f.Close())
	}()
	s, _, _ := streams("", nil)
	got, err := clikit.ReadSecret(context.Background(), s, clikit.Secret{Path: fifo, What: "passphrase"})
	if err != nil || string(got) != "secret" {
		t.Errorf("%q, %v", got, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestConfirmWithoutTerminal(t *testing.T) {
	s, _, errs := streams("y\n", nil)
	if ok, err := (&clikit.Common{Yes: true, NoInput: true}).Confirm(s, "Sure?"); !ok || err != nil {
		t.Errorf("--yes: %t, %v", ok, err)
	}
	if ok, err := (&clikit.Common{}).Confirm(s, "Sure?"); ok || clikit.ExitCode(err) != clikit.ExitUsage {
		t.Errorf("a pipe answers: %t, %v", ok, err)
	}
	if errs.Len() > 0 {
		t.Errorf("asked nobody: %q", errs)
	}
}

func TestNothingIsStyledInAPipe(t *testing.T) {
	s, out, _ := streams("", map[string]string{"TERM": "xterm"})
	if s.Styled(out) {
		t.Error("a buffer is styled")
	}
}

func TestLogger(t *testing.T) {
	for _, tc := range []struct {
		common      clikit.Common
		debug, info bool
	}{
		{clikit.Common{}, false, true},
		{clikit.Common{Verbose: true, LogFormat: "json"}, true, true},
		{clikit.Common{Quiet: true}, false, false},
	} {
		var out bytes.Buffer
		log := tc.common.Logger(&out)
		log.Debug("d-line")
		log.Info("i-line")
		log.Warn("w-line")
		got := out.String()
		if strings.Contains(got, "d-line") != tc.debug || strings.Contains(got, "i-line") != tc.info || !strings.Contains(got, "w-line") {
			t.Errorf("%+v: %s", tc.common, got)
		}
		if isJSON := json.Valid([]byte(strings.SplitN(got, "\n", 2)[0])); isJSON != (tc.common.LogFormat == "json") {
			t.Errorf("%+v: %s", tc.common, got)
		}
	}
}
