package notify

import (
	"testing"
	"time"
)

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
