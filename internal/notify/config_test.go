package notify_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/notify"
)

// TestValidate: what each channel refuses, in words that name the key.
func TestValidate(t *testing.T) {
	t.Parallel()
	exec := func(command ...string) notify.Config {
		return notify.Config{Exec: &notify.ExecConfig{Command: command}}
	}
	webhook := func(url, secret string) notify.Config {
		return notify.Config{Webhook: &notify.WebhookConfig{URL: url, SecretFile: secret}}
	}
	mail := func(change func(*notify.SMTPConfig)) notify.Config {
		c := notify.SMTPConfig{Server: "mail.example.com:587", From: "clm@example.com", To: []string{"ops@example.com"}}
		change(&c)
		return notify.Config{SMTP: &c}
	}
	to := func(addresses ...string) notify.Config { return mail(func(c *notify.SMTPConfig) { c.To = addresses }) }
	var many []string
	for i := range 21 {
		many = append(many, fmt.Sprintf("ops%d@example.com", i))
	}
	for name, tt := range map[string]struct {
		c    notify.Config
		want string // "": it is right
	}{
		"nothing":                {notify.Config{}, ""},
		"exec":                   {exec("/usr/bin/hook", "-x"), ""},
		"exec without a command": {exec(), "notify.exec: command needs an absolute path"},
		"exec by name":           {exec("hook"), "notify.exec: command needs an absolute path"},
		"exec with NUL":          {exec("/hook", "a\x00b"), "byte 0"},
		"webhook":                {webhook("https://example.com/hook?x=y", "/s"), ""},
		"webhook here":           {webhook("http://127.0.0.1:8080/hook", "/s"), ""},
		"webhook here, IPv6":     {webhook("http://[::1]:8080/hook", "/s"), ""},
		"webhook in clear":       {webhook("http://example.com/hook", "/s"), "notify.webhook: url must begin with https://"},
		"webhook at localhost.x": {webhook("http://localhost.example.com/hook", "/s"), "https://"},
		"webhook of a file":      {webhook("file:///etc/passwd", "/s"), "notify.webhook: url"},
		"webhook of nowhere":     {webhook("https:///hook", "/s"), "url is not one"},
		"webhook with password":  {webhook("https://u:hunter2@example.com/", "/s"), "must not hold a password"},
		"webhook with CR":        {webhook("https://example.com/\r\nx: y", "/s"), "url is not one"},
		"webhook without secret": {webhook("https://example.com/", ""), "secret_file is missing"},
		"mail":                   {mail(func(*notify.SMTPConfig) {}), ""},
		"mail with names":        {to("Ops <ops@example.com>", "ops2@example.com"), ""},
		"mail without port":      {mail(func(c *notify.SMTPConfig) { c.Server = "mail.example.com" }), "notify.smtp: server"},
		"mail to port 0":         {mail(func(c *notify.SMTPConfig) { c.Server = "mail.example.com:0" }), "notify.smtp: server"},
		"mail to no host":        {mail(func(c *notify.SMTPConfig) { c.Server = ":25" }), "notify.smtp: server"},
		"mail, TLS unknown":      {mail(func(c *notify.SMTPConfig) { c.TLS = "always" }), `"always" is none of`},
		"mail in clear":          {mail(func(c *notify.SMTPConfig) { c.TLS = notify.TLSNone }), "for this host only"},
		"mail in clear, here":    {mail(func(c *notify.SMTPConfig) { c.TLS, c.Server = notify.TLSNone, "localhost:25" }), ""},
		"mail to nobody":         {to(), "to is missing"},
		"mail to two in one":     {to("a@example.com, b@example.com"), "to:"},
		"mail to one twice":      {to("a@example.com", "A <a@example.com>"), "stands there twice"},
		"mail to a header":       {to("a@example.com\r\nBcc: b@example.com"), "to:"},
		"mail to too many":       {to(many...), "at most 20"},
		"mail from a header":     {mail(func(c *notify.SMTPConfig) { c.From = "a@example.com\nBcc: b@example.com" }), "from:"},
		"mail from nobody":       {mail(func(c *notify.SMTPConfig) { c.From = "" }), "from:"},
		"mail, no password":      {mail(func(c *notify.SMTPConfig) { c.Username = "u" }), "belong together"},
		"mail, no user":          {mail(func(c *notify.SMTPConfig) { c.PasswordFile = "/p" }), "belong together"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := tt.c.Validate()
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.ContainsAny(err.Error(), "\r\n")) {
				t.Errorf("%q", err)
			}
			if _, newErr := notify.New(tt.c, start); (newErr == nil) != (err == nil) {
				t.Errorf("New: %v", newErr)
			}
		})
	}
}

// TestValidateSaysAll that is wrong at once.
func TestValidateSaysAll(t *testing.T) {
	t.Parallel()
	err := notify.Config{Exec: &notify.ExecConfig{}, Webhook: &notify.WebhookConfig{}, SMTP: &notify.SMTPConfig{}}.Validate()
	for _, key := range []string{"notify.exec:", "notify.webhook:", "notify.smtp:"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("no %s in %v", key, err)
		}
	}
}
