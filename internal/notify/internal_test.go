package notify

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestUnreadableIsNotDamaged: a file that cannot be read just now (no descriptor
// left, a disk that does not answer) is left where it is.
func TestUnreadableIsNotDamaged(t *testing.T) {
	t.Parallel()
	s := spool{dir: t.TempDir()}
	if _, err := s.read(s.dir, "missing.json"); err == nil || errors.Is(err, errDamaged) {
		t.Errorf("missing: %v", err)
	}
	for name, content := range map[string][]byte{"no JSON": []byte("{"), "another version": []byte(`{"version": 2}`), "huge": make([]byte, maxItem+1)} {
		if err := os.WriteFile(filepath.Join(s.dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.read(s.dir, name); !errors.Is(err, errDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzItem(f *testing.F) {
	f.Add([]byte(`{"version":1,"message":{"type":"alerts.digest","data":{"version":1,"id":"msg_0","severity":"info"}},"channels":{"exec":{"tries":1}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		it, err := parseItem(data)
		if err != nil {
			return
		}
		if _, err := it.Message.body(); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	f.Add("120")
	f.Add("Tue, 01 Jan 2030 00:00:00 GMT")
	f.Fuzz(func(t *testing.T, header string) {
		if d := retryAfter(header, time.Unix(0, 0)); d < 0 || d > maxRetryAfter {
			t.Fatal(d)
		}
	})
}

func FuzzSecret(f *testing.F) {
	f.Add("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")
	f.Fuzz(func(t *testing.T, text string) {
		if secret, err := parseSecret(text); err == nil && (len(secret) < 24 || len(secret) > 64) {
			t.Fatal(len(secret))
		}
	})
}
