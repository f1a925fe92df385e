package notify_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/notify"
	"github.com/edgeclm/edgeclm/internal/testpeer"
)

const (
	mailUser     = "clm"
	mailPassword = "correct horse+battery/staple"
)

// channels are those of a configuration that has to be right.
func channels(t testing.TB, c notify.Config) []notify.Channel {
	t.Helper()
	out, err := notify.New(c, start)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestMailServer: each way to protect the connection, with a password, against
// a real server; by way of the configuration and of clmctl notify test.
func TestMailServer(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{notify.TLSStart, notify.TLSOn} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			server := testpeer.StartMailServer(t, testpeer.MailOptions{TLS: mode, Username: mailUser, Password: mailPassword})
			config := notify.SMTPConfig{
				Server: server.Address, TLS: mode, From: "The CLM <clm@example.com>", To: []string{"ops@example.com", "Jürgen <j@example.com>"},
				Username: mailUser, PasswordFile: write(t, "password", mailPassword+"\n", 0o600), CAFile: server.CA,
			}
			n := notify.Notifier{CLM: "clm-1", Channels: channels(t, notify.Config{SMTP: &config}), Now: start}
			results, err := n.Test(t.Context(), "smtp")
			if err != nil || len(results) != 2 {
				t.Fatal(results, err)
			}
			for _, r := range results {
				if r.Err != nil {
					t.Errorf("%s: %v", r.Channel, r.Err)
				}
			}
			var to []string
			for _, m := range server.Received() {
				to = append(to, m.To...)
				if !m.TLS || !m.Authenticated || m.From != "clm@example.com" || !strings.Contains(m.Data, "Subject: edgeclm: a test from clm-1\r\n") {
					t.Errorf("%+v", m)
				}
			}
			if strings.Join(to, " ") != "ops@example.com j@example.com" {
				t.Errorf("sent to %v", to)
			}

			config.PasswordFile = write(t, "password", "the wrong one", 0o600)
			err = channels(t, notify.Config{SMTP: &config})[0].Send(t.Context(), message("x"))
			if err == nil || !strings.Contains(err.Error(), "5.7.8 wrong: ***") || errors.Is(err, notify.ErrFinal) {
				t.Errorf("wrong password: %v", err)
			}
			config.PasswordFile = write(t, "password", mailPassword, 0o644)
			if err := channels(t, notify.Config{SMTP: &config})[0].Send(t.Context(), message("x")); err == nil || !strings.Contains(err.Error(), "mode 0644") {
				t.Errorf("a password that others can read: %v", err)
			}
			if n := len(server.Received()); n != 2 {
				t.Errorf("%d messages", n)
			}
		})
	}
}

// TestMailServerUntrusted: nothing is sent, no password least of all, to a
// server whose certificate is of somebody else, or for another host.
func TestMailServerUntrusted(t *testing.T) {
	t.Parallel()
	const silence = time.Second // where each waits for the other to begin
	for _, mode := range []string{notify.TLSStart, notify.TLSOn} {
		server := testpeer.StartMailServer(t, testpeer.MailOptions{TLS: mode, Username: mailUser, Password: mailPassword})
		other := testpeer.StartMailServer(t, testpeer.MailOptions{TLS: mode})
		config := notify.SMTPConfig{
			Server: server.Address, TLS: mode, From: "clm@example.com", To: []string{"ops@example.com"},
			Username: mailUser, PasswordFile: write(t, "password", mailPassword, 0o600),
		}
		host := strings.Replace(server.Address, "127.0.0.1", "localhost", 1)
		for name, change := range map[string]func(*notify.SMTPConfig){
			"system's trust": func(*notify.SMTPConfig) {},
			"another CA":     func(c *notify.SMTPConfig) { c.CAFile = other.CA },
			"another name":   func(c *notify.SMTPConfig) { c.CAFile, c.Server = server.CA, host },
			"no TLS":         func(c *notify.SMTPConfig) { c.TLS, c.Timeout = notify.TLSNone, silence },
			"the other way": func(c *notify.SMTPConfig) {
				c.TLS = map[string]string{"tls": "starttls", "starttls": "tls"}[mode]
				c.Timeout = silence
			},
		} {
			c := config
			change(&c)
			err := channels(t, notify.Config{SMTP: &c})[0].Send(t.Context(), message("x"))
			var down *notify.Down
			if err == nil || !errors.As(err, &down) && name != "no TLS" || errors.Is(err, notify.ErrFinal) && name != "no TLS" {
				t.Errorf("%s, %s: %v", mode, name, err)
			}
		}
		if got := server.Received(); len(got) > 0 {
			t.Errorf("%s: %+v", mode, got)
		}
	}
}

// TestOneAddressRefused: the others get the message, once, whatever becomes of
// the one that is refused or put off.
func TestOneAddressRefused(t *testing.T) {
	t.Parallel()
	server := testpeer.StartMailServer(t, testpeer.MailOptions{TLS: notify.TLSNone})
	config := notify.SMTPConfig{
		Server: server.Address, TLS: notify.TLSNone, From: "clm@example.com",
		To: []string{"nobody@example.com", "later@example.com", "ops@example.com"},
	}
	now := &clock{start()}
	n := newNotifier(t.TempDir(), nil, now)
	n.Channels = channels(t, notify.Config{SMTP: &config})
	for range 5 {
		if err := n.Observe(t.Context(), now.now, bad()); err != nil {
			t.Fatal(err)
		}
		now.now = now.now.Add(time.Hour)
	}
	var got []string
	for _, m := range server.Received() {
		got = append(got, m.To...)
	}
	if strings.Join(got, " ") != "ops@example.com" {
		t.Errorf("sent to %v", got)
	}
	for range 100 {
		now.now = now.now.Add(time.Hour)
		if err := n.Deliver(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	dead, err := n.DeadLetters()
	if err != nil || len(dead) != 1 || !strings.Contains(dead[0].Errors["smtp:nobody@example.com"], "550") || !strings.Contains(dead[0].Errors["smtp:later@example.com"], "451") {
		t.Errorf("%+v: %v", dead, err)
	}
}
