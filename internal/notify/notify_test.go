package notify_test

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/alert"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
	"github.com/edgeclm/edgeclm/internal/notify"
)

func start() time.Time { return time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC) }

func message(text string) notify.Message {
	return notify.NewMessage("msg_0123", "clm-1", alert.Digest{Sequence: 1, At: start(), Open: 1, New: alert.Evaluate(start(), alert.Facts{
		Troubles: []alert.Trouble{{Device: "plc-1", Class: enrol.ClassHook, LastError: text, Quarantined: true}},
	}, alert.Thresholds{})})
}

func write(t testing.TB, name, content string, perm os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), perm); err != nil {
		t.Fatal(err)
	}
	return path
}

const key = "0123456789abcdef0123456789abcdef"

type receiver struct {
	*httptest.Server
	hook notify.Webhook
}

func newReceiver(t testing.TB, handle http.HandlerFunc) receiver {
	t.Helper()
	s := httptest.NewTLSServer(handle)
	t.Cleanup(s.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	return receiver{s, notify.Webhook{
		URL: s.URL + "/hook?token=hunter2", SecretFile: write(t, "secret", "whsec_"+base64.StdEncoding.EncodeToString([]byte(key))+"\n", 0o600),
		CAFile: write(t, "ca.pem", string(ca), 0o600), Timeout: time.Minute, Now: start,
	}}
}

// TestWebhook: signed as the specification has it.
func TestWebhook(t *testing.T) {
	t.Parallel()
	got := make(chan string, 1)
	r := newReceiver(t, func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h := r.Header
		if h.Get("webhook-signature") != notify.Signature([]byte(key), "msg_0123", "1893456000", body) || h.Get("webhook-timestamp") != "1893456000" {
			t.Errorf("%v", h)
		}
		got <- h.Get("webhook-id")
	})
	if err := r.hook.Send(t.Context(), message("x")); err != nil {
		t.Fatal(err)
	}
	if id := <-got; id != "msg_0123" {
		t.Error(id)
	}
}

// TestSignature: the example of the specification.
func TestSignature(t *testing.T) {
	t.Parallel()
	secret, err := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	got := notify.Signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestWebhookRefused: what is final, what is not, and that no error shows the
// token in the URL.
func TestWebhookRefused(t *testing.T) {
	t.Parallel()
	for code, final := range map[int]bool{302: false, 400: true, 401: true, 410: true, 408: false, 429: false, 500: false, 503: false} {
		r := newReceiver(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/hook" {
				t.Error("followed a redirect")
			}
			w.Header().Set("Location", "/elsewhere")
			w.Header().Set("Retry-After", "120")
			w.WriteHeader(code)
			for range 1000 {
				_, _ = w.Write([]byte(strings.Repeat("huge\x1b[31m", 1000)))
			}
		})
		err := r.hook.Send(t.Context(), message("x"))
		if err == nil || errors.Is(err, notify.ErrFinal) != final || len(err.Error()) > 500 || strings.ContainsAny(err.Error(), "\x1b\n") {
			t.Errorf("%d: %v", code, err)
		}
		var later *notify.TryLater
		if errors.As(err, &later) == final || !final && later.After != 2*time.Minute {
			t.Errorf("%d: %v", code, err)
		}
		r.Close()
		if err := r.hook.Send(t.Context(), message("x")); err == nil || strings.Contains(err.Error(), "hunter2") || errors.Is(err, notify.ErrFinal) {
			t.Errorf("closed: %v", err)
		}
	}
}

// TestWebhookTestsItself: a test message is signed like any other, and a
// receiver that repeats the URL in its error has no secret of it shown.
func TestWebhookTestsItself(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusOK, http.StatusNotFound, http.StatusInternalServerError} {
		r := newReceiver(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if r.Header.Get("webhook-signature") != notify.Signature([]byte(key), r.Header.Get("webhook-id"), r.Header.Get("webhook-timestamp"), body) {
				t.Errorf("%v", r.Header)
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "cannot POST "+r.RequestURI+" ("+r.URL.Path+", "+r.URL.Query().Get("token")+")")
		})
		config := notify.WebhookConfig{
			URL: r.URL + "/services/T0secret/?token=hunter2%2Fx%20y", SecretFile: r.hook.SecretFile, CAFile: r.hook.CAFile,
		}
		n := notify.Notifier{CLM: "clm-1", Channels: channels(t, notify.Config{Webhook: &config}), Now: start}
		results, err := n.Test(t.Context(), "webhook")
		if err != nil || len(results) != 1 {
			t.Fatal(results, err)
		}
		err = results[0].Err
		if (err == nil) != (status == http.StatusOK) {
			t.Errorf("%d: %v", status, err)
		}
		if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "T0secret") || !strings.Contains(err.Error(), "cannot POST /***")) {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// TestWebhookUntrusted: no message for a receiver whose certificate somebody
// else has signed, and none without a secret that is one.
func TestWebhookUntrusted(t *testing.T) {
	t.Parallel()
	r := newReceiver(t, func(http.ResponseWriter, *http.Request) { t.Error("it was sent") })
	for name, change := range map[string]func(*notify.Webhook){
		"system's trust":   func(w *notify.Webhook) { w.CAFile = "" },
		"no CA file":       func(w *notify.Webhook) { w.CAFile = "/nonexistent" },
		"empty CA file":    func(w *notify.Webhook) { w.CAFile = write(t, "ca.pem", "", 0o600) },
		"no secret":        func(w *notify.Webhook) { w.SecretFile = "/nonexistent" },
		"open secret":      func(w *notify.Webhook) { w.SecretFile = write(t, "s", "whsec_"+strings.Repeat("A", 44), 0o640) },
		"secret too short": func(w *notify.Webhook) { w.SecretFile = write(t, "s", "whsec_aHVudGVyMg==", 0o600) },
	} {
		w := r.hook
		change(&w)
		if err := w.Send(t.Context(), message("x")); err == nil || errors.Is(err, notify.ErrFinal) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "aHVudGVyMg") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// fake is a channel that fails as it is told to.
type fake struct {
	err error
	got []notify.Message
}

func (*fake) Name() string { return "fake" }

func (f *fake) Send(_ context.Context, m notify.Message) error {
	f.got = append(f.got, m)
	return f.err
}

type clock struct{ now time.Time }

func newNotifier(dir string, c *fake, now *clock) *notify.Notifier {
	return &notify.Notifier{
		Dir: dir, CLM: "clm-1", Channels: []notify.Channel{c}, Now: func() time.Time { return now.now },
		Jitter: func() float64 { return 0.5 }, Log: slog.New(slog.DiscardHandler),
	}
}

func bad() alert.Facts { return alert.Facts{ClockDoubt: "it is"} }

// TestNotifier: told once, tried again with the same ID, given up, retried.
func TestNotifier(t *testing.T) {
	t.Parallel()
	c, now := &fake{err: errors.New("down")}, &clock{start()}
	n := newNotifier(filepath.Join(t.TempDir(), "notify"), c, now)
	observe := func(f alert.Facts) {
		t.Helper()
		if err := n.Observe(t.Context(), now.now, f); err != nil {
			t.Fatal(err)
		}
	}
	observe(bad())
	observe(bad())
	if len(c.got) != 1 {
		t.Fatalf("%d tries at once", len(c.got))
	}
	now.now = now.now.Add(time.Minute)
	c.err = nil
	observe(bad())
	observe(bad())
	if len(c.got) != 2 || c.got[0].Data.ID != c.got[1].Data.ID {
		t.Fatalf("%+v", c.got)
	}
	now.now = now.now.Add(time.Hour)
	observe(alert.Facts{})
	now.now = now.now.Add(time.Hour)
	c.err = notify.ErrFinal
	observe(alert.Facts{})
	observe(alert.Facts{})
	if len(c.got) != 3 || len(c.got[2].Data.Recovered) != 1 {
		t.Fatalf("%+v", c.got)
	}
	dead, err := n.DeadLetters()
	if err != nil || len(dead) != 1 {
		t.Fatalf("%v %v", dead, err)
	}
	c.err = nil
	if err := n.Retry(dead[0].ID); err != nil {
		t.Fatal(err)
	}
	if err := n.Deliver(t.Context()); err != nil || len(c.got) != 4 {
		t.Fatal(err, len(c.got))
	}
	if counts, err := n.Counts(); err != nil || counts != (notify.Counts{}) {
		t.Fatal(counts, err)
	}
}

// TestNotifierCheap: where nothing changed nothing is written.
func TestNotifierCheap(t *testing.T) {
	t.Parallel()
	c, now := &fake{}, &clock{start()}
	n := newNotifier(filepath.Join(t.TempDir(), "notify"), c, now)
	for range 3 {
		if err := n.Observe(t.Context(), now.now, bad()); err != nil {
			t.Fatal(err)
		}
		layer := keyfiletest.New(0, keyfiletest.Kill)
		n.Files = keyfile.On(layer)
		now.now = now.now.Add(time.Minute)
		if err := n.Observe(t.Context(), now.now, bad()); err != nil || layer.Operations() != 0 {
			t.Fatal(err, layer.Operations())
		}
		n.Files = keyfile.Files{}
	}
}

// TestNotifierCut: whatever operation the power fails in, the alert is told, by
// one ID, at most once more than without.
func TestNotifierCut(t *testing.T) {
	t.Parallel()
	for _, mode := range []keyfiletest.Mode{keyfiletest.Kill, keyfiletest.Scatter} {
		for cut := 1; ; cut++ {
			dir := filepath.Join(t.TempDir(), "notify")
			c, now := &fake{}, &clock{start()}
			n := newNotifier(dir, c, now)
			layer := keyfiletest.New(cut, mode)
			n.Files = keyfile.On(layer)
			_ = n.Observe(t.Context(), now.now, bad())
			n.Files = keyfile.Files{}
			for range 3 {
				if err := n.Observe(t.Context(), now.now, bad()); err != nil {
					t.Fatalf("cut %d: %v", cut, err)
				}
			}
			if len(c.got) == 0 || len(c.got) > 2 || c.got[0].Data.ID != c.got[len(c.got)-1].Data.ID {
				t.Errorf("mode %v, cut %d: %d messages", mode, cut, len(c.got))
			}
			if !layer.Cut() {
				if cut < 8 || len(c.got) != 1 {
					t.Errorf("%d operations, %d messages", cut, len(c.got))
				}
				break
			}
		}
	}
}
