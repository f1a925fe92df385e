package devagent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/enrol"
)

var (
	_ coaplink.Services  = (*agent.Agent)(nil)
	_ coaplink.PeerStore = (*agent.Agent)(nil)
)

func TestSplitCommand(t *testing.T) {
	for s, want := range map[string][]string{
		"":                               nil,
		"  ":                             nil,
		"systemctl reload nginx":         {"systemctl", "reload", "nginx"},
		" a\t b \n":                      {"a", "b"},
		`sh -c 'kill -HUP "$(pidof x)"'`: {"sh", "-c", `kill -HUP "$(pidof x)"`},
		`a"b c"d ''`:                     {"ab cd", ""},
		`a\ b`:                           {`a\`, "b"},
	} {
		if got, err := splitCommand(s); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q was split into %q, %v; want %q", s, got, err, want)
		}
	}
	for _, s := range []string{`'`, `a "b`, `'"`} {
		if got, err := splitCommand(s); err == nil {
			t.Errorf("%q was split into %q", s, got)
		}
	}
}

// The names and types of what scripts read from status -o json.
func TestStatusJSON(t *testing.T) {
	d := newDevice(t)
	first := d.activate(1)
	second := d.stage(2)
	d.close()
	anchor := bundle.Hash(sha256.Sum256(d.ca.Raw))
	got := map[string]any{}
	if code, errs := run(t, &got, "--data-dir", d.dir, "status", "-o", "json"); code != 0 || errs != "" {
		t.Fatalf("exit %d: %s", code, errs)
	}
	for key, value := range map[string]any{
		"identity": d.id.String(), "params_id": d.paramsID, "sealed": false,
		"version": clikit.Version().Version, "last_error": nil, "rolled_back": nil, "clock": "plausible",
		"active":  map[string]any{"serial": "0101", "sha256": first, "not_after": d.notAfter.Format(time.RFC3339), "key_matches": true, "key_store": "file"},
		"anchors": []any{anchor.String()}, "anchor_serial": 0.0,
		"staged": map[string]any{"serial": "0102", "sha256": second, "not_after": d.notAfter.Format(time.RFC3339)},
	} {
		if !reflect.DeepEqual(got[key], value) {
			t.Errorf("%s is %v, want %v", key, got[key], value)
		}
		delete(got, key)
	}
	if len(got) > 0 {
		t.Errorf("unexpected: %v", got)
	}
}

// The command says the same whether an agent runs or not, and twice does not
// bring the other certificate back.
func TestRollbackCommand(t *testing.T) {
	for _, running := range []bool{false, true} {
		t.Run(fmt.Sprint("running ", running), func(t *testing.T) {
			d := newDevice(t)
			log := filepath.Join(t.TempDir(), "log")
			consumers := filepath.Join(d.dir, "config.yaml")
			text := fmt.Sprintf("reload_hook: sh -c 'echo $EDGECLM_RESTORED >> %s'\nconsumers: [{name: web, dir: %s}]\n", log, filepath.Join(filepath.Dir(d.dir), "web"))
			d.must(os.WriteFile(consumers, []byte(text), 0o600))
			first, second := d.activate(1), d.activate(2)
			d.close()
			want := map[string]any{
				"restored": map[string]any{"serial": "0101", "sha256": first, "not_after": d.notAfter.Format(time.RFC3339)},
				"given_up": second, "failure": nil,
			}
			if running {
				d.serve()
			}
			got := map[string]any{}
			if code, errs := run(t, &got, "--data-dir", d.dir, "-q", "rollback", "-o", "json"); code != 0 || strings.Contains(errs, "devagent: ") {
				t.Fatalf("exit %d: %s", code, errs)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			code, errs := run(t, nil, "--data-dir", d.dir, "-q", "rollback")
			if code != 1 || !strings.Contains(errs, "error: there is no previous certificate to go back to: "+second+" was given up already") || !strings.Contains(errs, "hint: only") {
				t.Errorf("exit %d: %s", code, errs)
			}
			d.close()
			if hooks, err := os.ReadFile(log); err != nil || !strings.HasSuffix(string(hooks), "yes\n") {
				t.Errorf("the hook ran as %q, %v", hooks, err)
			}
			status := map[string]any{}
			if code, errs := run(t, &status, "--data-dir", d.dir, "status", "-o", "json"); code != 0 || status["rolled_back"] != second || status["last_error"] != "rolled back by hand" {
				t.Errorf("exit %d: %s: %v", code, errs, status)
			}
			cert, err := os.ReadFile(filepath.Join(filepath.Dir(d.dir), "web", "cert.pem"))
			d.must(err)
			if block, _ := pem.Decode(cert); fmt.Sprintf("%x", sha256.Sum256(block.Bytes)) != first {
				t.Error("the consumer has not the restored certificate")
			}
		})
	}
}

// A service that does not take the restored pair is told of, with exit code 1.
func TestRollbackWithFailingHook(t *testing.T) {
	d := newDevice(t)
	d.activate(1)
	d.activate(2)
	d.close()
	var got map[string]any
	code, errs := run(t, &got, "--data-dir", d.dir, "-q", "--config", "testdata/failing.yaml", "rollback", "-o", "json")
	if code != 1 || !strings.Contains(errs, "error: the previous certificate is active again, but not in use everywhere: ") {
		t.Errorf("exit %d: %s", code, errs)
	}
	if text, ok := got["failure"].(string); !ok || !strings.Contains(text, "consumer web: the reload hook failed: exit status 1") {
		t.Errorf("got %v", got)
	}
}

// One service that does not take a new certificate takes it back from all: the
// others' files and hooks follow, and the CLM hears what was given up.
func TestFailingConsumerRestoresAll(t *testing.T) {
	d := newDevice(t)
	work := filepath.Dir(d.dir)
	text := fmt.Sprintf(`consumers:
  - name: web
    dir: %[1]s/web
    hook: sh -c 'echo web $EDGECLM_RESTORED >> %[1]s/log'
  - name: broker
    dir: %[1]s/broker
    hook: sh -c 'echo broker $EDGECLM_RESTORED >> %[1]s/log; test ! -e %[1]s/broken -o -n "$EDGECLM_RESTORED"'
  - name: last
    hook: sh -c 'echo last $EDGECLM_RESTORED >> %[1]s/log'
`, work)
	d.must(os.WriteFile(filepath.Join(d.dir, "config.yaml"), []byte(text), 0o600))
	d.close()
	d.serve()
	first := d.activate(1)
	second := d.stage(2)
	d.must(os.WriteFile(filepath.Join(work, "broken"), nil, 0o600))
	d.must(os.Remove(filepath.Join(work, "log")))
	sum, err := hex.DecodeString(second)
	d.must(err)
	err = d.agent.Activate(t.Context(), d.peer(), enrol.ID{2}, [32]byte(sum), time.Hour)
	var refusal *enrol.DeviceError
	if !errors.As(err, &refusal) || refusal.Problem != enrol.ProblemRolledBack || refusal.Detail != "consumer broker: the reload hook failed: exit status 1" {
		t.Errorf("got %v", err)
	}
	status, err := d.agent.Status(t.Context(), d.peer())
	d.must(err)
	if status.RolledBack == nil || *status.RolledBack != [32]byte(sum) || status.LastError != refusal.Detail {
		t.Errorf("the status is %+v", status)
	}
	hooks, err := os.ReadFile(filepath.Join(work, "log"))
	if err != nil || string(hooks) != "web\nbroker\nweb yes\nbroker yes\nlast yes\n" {
		t.Errorf("the hooks ran as %q, %v", hooks, err)
	}
	for _, name := range []string{"web", "broker"} {
		cert, err := os.ReadFile(filepath.Join(work, name, "cert.pem"))
		d.must(err)
		if block, _ := pem.Decode(cert); fmt.Sprintf("%x", sha256.Sum256(block.Bytes)) != first {
			t.Errorf("%s has not the previous certificate", name)
		}
	}
}
