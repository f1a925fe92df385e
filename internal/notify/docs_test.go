package notify_test

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/alert"
	"github.com/edgeclm/edgeclm/internal/notify"
	"github.com/edgeclm/edgeclm/internal/testpeer"
)

func document(t *testing.T) string {
	t.Helper()
	return read(t, "..", "..", "docs", "notifications.md")
}

// TestDocumentNamesEachKind, and no other.
func TestDocumentNamesEachKind(t *testing.T) {
	t.Parallel()
	_, table, ok := strings.Cut(document(t), "## The alerts\n")
	if !ok {
		t.Fatal("no section of the alerts")
	}
	var got []alert.Kind
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\|").FindAllStringSubmatch(table, -1) {
		got = append(got, alert.Kind(m[1]))
	}
	if !slices.Equal(got, alert.Kinds()) {
		t.Errorf("%v, want %v", got, alert.Kinds())
	}
}

// TestDocumentNamesEachField of the JSON form.
func TestDocumentNamesEachField(t *testing.T) {
	t.Parallel()
	_, form, _ := strings.Cut(document(t), "## The JSON form\n")
	form, _, _ = strings.Cut(form, "\n## ")
	for _, of := range []any{notify.Message{}, notify.Data{}, alert.Alert{}, notify.Recovered{}} {
		for _, field := range reflect.VisibleFields(reflect.TypeOf(of)) {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if name != "" && !regexp.MustCompile("\\b"+name+"\\b").MatchString(form) {
				t.Errorf("%T: no word of %s", of, name)
			}
		}
	}
}

// TestReceiverOfTheDocument: the shell lines that make the secret and check a
// signature accept what the webhook sends, and nothing else.
func TestReceiverOfTheDocument(t *testing.T) {
	t.Parallel()
	testpeer.Look(t, "openssl")
	_, section, _ := strings.Cut(document(t), "## Checking the signature\n")
	blocks := regexp.MustCompile("(?s)```\n(.*?)```").FindAllStringSubmatch(section, -1)
	if len(blocks) != 2 {
		t.Fatalf("%d blocks of shell", len(blocks))
	}
	dir := t.TempDir()
	shell := func(script string, env ...string) error {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
		out, err := cmd.CombinedOutput()
		if err == nil && len(out) > 0 {
			t.Errorf("%s", out)
		}
		return err
	}
	if err := shell(blocks[0][1]); err != nil {
		t.Fatal(err)
	}
	var header http.Header
	r := newReceiver(t, func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || os.WriteFile(filepath.Join(dir, "body"), body, 0o600) != nil {
			t.Error("cannot keep the body")
		}
		header = r.Header
	})
	r.hook.SecretFile = filepath.Join(dir, "webhook.secret")
	if err := r.hook.Send(t.Context(), message("x")); err != nil {
		t.Fatal(err)
	}
	var m notify.Message
	if err := json.Unmarshal([]byte(read(t, dir, "body")), &m); err != nil {
		t.Fatal(err)
	}
	env := func(change map[string]string) (out []string) {
		for name, key := range map[string]string{"ID": "webhook-id", "TIMESTAMP": "webhook-timestamp", "SIGNATURE": "webhook-signature"} {
			value, ok := change[name]
			if !ok {
				value = header.Get(key)
			}
			out = append(out, name+"="+value)
		}
		return out
	}
	if err := shell(blocks[1][1], env(nil)...); err != nil {
		t.Errorf("refused: %v", err)
	}
	for name, value := range map[string]string{"ID": "msg_other", "TIMESTAMP": "1893456001", "SIGNATURE": "v1,AAAA"} {
		if shell(blocks[1][1], env(map[string]string{name: value})...) == nil {
			t.Errorf("accepted with another %s", name)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "body"), []byte(read(t, dir, "body")+" "), 0o600); err != nil {
		t.Fatal(err)
	}
	if shell(blocks[1][1], env(nil)...) == nil {
		t.Error("accepted with another body")
	}
}
