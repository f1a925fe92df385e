package notify

import (
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"time"
)

// defaultTimeout bounds one try on a channel.
const defaultTimeout = 30 * time.Second

// Bounds of a configuration.
const (
	maxRecipients = 20
	maxChannels   = 2 * maxRecipients // that a message may wait for, also after changes
)

// Config says which channels there are; nil is none of that kind.
type Config struct {
	Exec    *ExecConfig
	Webhook *WebhookConfig
	SMTP    *SMTPConfig
}

// ExecConfig is notify.exec.
type ExecConfig struct {
	Command []string
	Timeout time.Duration // 0: 30 s
	Path    string        // PATH of the command; "": the system's usual one
}

// WebhookConfig is notify.webhook.
type WebhookConfig struct {
	URL        string
	SecretFile string
	CAFile     string
	Timeout    time.Duration // 0: 30 s
}

// SMTPConfig is notify.smtp.
type SMTPConfig struct {
	Server       string
	TLS          string // "": starttls
	From         string
	To           []string
	Username     string
	PasswordFile string
	CAFile       string
	Timeout      time.Duration // 0: 30 s
}

// New checks the configuration and returns its channels.
func New(c Config, now func() time.Time) ([]Channel, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	var out []Channel
	if e := c.Exec; e != nil {
		out = append(out, Exec{Command: e.Command, Timeout: timeout(e.Timeout), Path: e.Path})
	}
	if w := c.Webhook; w != nil {
		out = append(out, Webhook{w.URL, w.SecretFile, w.CAFile, timeout(w.Timeout), now})
	}
	if s := c.SMTP; s != nil {
		mode := s.TLS
		if mode == "" {
			mode = TLSStart
		}
		for _, to := range s.To {
			out = append(out, SMTP{s.Server, mode, s.From, to, s.Username, s.PasswordFile, s.CAFile, timeout(s.Timeout)})
		}
	}
	return out, nil
}

func timeout(d time.Duration) time.Duration {
	if d <= 0 {
		return defaultTimeout
	}
	return d
}

// Validate reports what is wrong with a configuration, without looking at files
// or the network.
func (c Config) Validate() error {
	var errs []error
	if c.Exec != nil {
		errs = append(errs, wrap("notify.exec", c.Exec.validate()))
	}
	if c.Webhook != nil {
		errs = append(errs, wrap("notify.webhook", c.Webhook.validate()))
	}
	if c.SMTP != nil {
		errs = append(errs, wrap("notify.smtp", c.SMTP.validate()))
	}
	return errors.Join(errs...)
}

func wrap(key string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", key, err)
}

func (c ExecConfig) validate() error {
	if len(c.Command) == 0 || !filepath.IsAbs(c.Command[0]) {
		return errors.New("command needs an absolute path")
	}
	if strings.Contains(strings.Join(c.Command, ""), "\x00") {
		return errors.New("command has a byte 0 in it")
	}
	return nil
}

func (c WebhookConfig) validate() error {
	u, err := url.Parse(c.URL)
	switch {
	case err != nil, u.Host == "":
		return errors.New("url is not one")
	case u.User != nil:
		return errors.New("url must not hold a password; the signature says who sends")
	case u.Scheme == "https", u.Scheme == "http" && loopback(u.Hostname()):
	default:
		return errors.New("url must begin with https:// (http:// is for this host only)")
	}
	if c.SecretFile == "" {
		return errors.New("secret_file is missing")
	}
	return nil
}

func (c SMTPConfig) validate() error {
	host, _, err := splitServer(c.Server)
	if err != nil {
		return fmt.Errorf("server: %w", err)
	}
	switch c.TLS {
	case "", TLSStart, TLSOn:
	case TLSNone:
		if !loopback(host) {
			return errors.New("tls: none is for this host only")
		}
	default:
		return fmt.Errorf("tls: %q is none of starttls, tls, none", c.TLS)
	}
	if err := c.validateAddresses(); err != nil {
		return err
	}
	if (c.Username == "") != (c.PasswordFile == "") {
		return errors.New("username and password_file belong together")
	}
	return nil
}

func (c SMTPConfig) validateAddresses() error {
	switch {
	case len(c.To) == 0:
		return errors.New("to is missing")
	case len(c.To) > maxRecipients:
		return fmt.Errorf("to: at most %d addresses; a mailing list takes more", maxRecipients)
	}
	if _, err := mail.ParseAddress(c.From); err != nil {
		return fmt.Errorf("from: %q: %w", c.From, err)
	}
	seen := map[string]bool{}
	for _, to := range c.To {
		a, err := mail.ParseAddress(to)
		if err != nil {
			return fmt.Errorf("to: %q: %w", to, err)
		}
		if seen[a.Address] {
			return fmt.Errorf("to: %q stands there twice", a.Address)
		}
		seen[a.Address] = true
	}
	return nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && net.IP(ip.AsSlice()).IsLoopback()
}
