package notify

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	netmail "net/mail"
	"strconv"
	"strings"
	"time"

	"github.com/wneessen/go-mail"

	"github.com/edgeclm/edgeclm/internal/alert"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// maxMail bounds the text of an e-mail, in bytes.
const maxMail = 32 << 10

// The ways to protect the connection to a mail server.
const (
	TLSStart = "starttls" // from the start of the session on, or not at all
	TLSOn    = "tls"      // from the first byte
	TLSNone  = "none"     // on this host only
)

// SMTP sends the message as e-mail to one address: each has a message of its
// own, so that one which is refused, or put off, keeps it from nobody else, and
// nobody gets it twice for another's sake.
type SMTP struct {
	Server       string // host:port
	TLS          string
	From         string
	To           string
	Username     string // "": no authentication
	PasswordFile string // read at each message
	CAFile       string // "": the system's trust store
	Timeout      time.Duration
}

// Name implements Channel.
func (s SMTP) Name() string { return "smtp:" + bareAddress(s.To) }

// Send implements Channel.
func (s SMTP) Send(ctx context.Context, m Message) error {
	letter, err := s.letter(m)
	if err != nil {
		return fmt.Errorf("write the e-mail: %w", err)
	}
	password := ""
	if s.Username != "" {
		data, err := keyfile.ReadSecret(s.PasswordFile, maxSecretFile)
		if err != nil {
			return fmt.Errorf("read the mail server's password: %w", err)
		}
		password = strings.TrimRight(string(data), "\r\n")
		clear(data)
	}
	client, err := s.client(password)
	if err != nil {
		return fmt.Errorf("prepare the mail client: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	err = client.DialAndSendWithContext(ctx, letter)
	if err == nil || letter.IsDelivered() { // whatever the server said to good-bye
		return nil
	}
	said := alert.Clean(s.mask(err.Error(), password), 400)
	var refusal *mail.SendError
	switch {
	case !errors.As(err, &refusal) || refusal.ErrorCode() == 0:
		return &Down{fmt.Errorf("send the e-mail: %s", said)}
	case refusal.ErrorCode() >= 500 && refusal.ErrorCode() < 600:
		return fmt.Errorf("send the e-mail: %w: %s", ErrFinal, said)
	}
	return fmt.Errorf("send the e-mail: %s", said)
}

// mask takes the password out of what a server said, also as it was sent; before
// anything is cut off, which might leave half of it.
func (s SMTP) mask(said, password string) string {
	if password == "" {
		return said
	}
	for _, form := range []string{
		password, base64.StdEncoding.EncodeToString([]byte(password)),
		base64.StdEncoding.EncodeToString([]byte("\x00" + s.Username + "\x00" + password)),
	} {
		said = strings.ReplaceAll(said, form, "***")
	}
	return said
}

// bareAddress is the address without a name; "" if it is none.
func bareAddress(address string) string {
	a, err := netmail.ParseAddress(address)
	if err != nil {
		return ""
	}
	return a.Address
}

// letter writes the e-mail. What is in its header is one line each, and
// encoded where it is not ASCII.
func (s SMTP) letter(m Message) (*mail.Msg, error) {
	letter := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := letter.From(s.From); err != nil {
		return nil, err
	}
	if err := letter.To(s.To); err != nil {
		return nil, err
	}
	domain := "edgeclm.invalid"
	if from := bareAddress(s.From); strings.Contains(from, "@") {
		domain = from[strings.LastIndexByte(from, '@')+1:]
	}
	letter.SetMessageIDWithValue(m.Data.ID + "@" + domain)
	letter.SetDateWithValue(m.Timestamp)
	letter.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834 section 5
	letter.Subject(alert.Clean(m.Data.Subject, 2*maxSubject))
	text := m.Data.Text
	if len(text) > maxMail {
		text = strings.ToValidUTF8(text[:maxMail], "") + "\n...\n"
	}
	letter.SetBodyString(mail.TypeTextPlain, text)
	return letter, nil
}

func (s SMTP) client(password string) (*mail.Client, error) {
	host, port, err := splitServer(s.Server)
	if err != nil {
		return nil, err
	}
	config, err := tlsConfig(s.CAFile)
	if err != nil {
		return nil, err
	}
	config.ServerName = host
	options := []mail.Option{mail.WithPort(port), mail.WithTimeout(s.Timeout), mail.WithTLSConfig(config), mail.WithoutNoop()}
	switch s.TLS {
	case TLSOn:
		options = append(options, mail.WithSSL())
	case TLSNone:
		options = append(options, mail.WithTLSPolicy(mail.NoTLS))
	default:
		options = append(options, mail.WithTLSPolicy(mail.TLSMandatory))
	}
	if s.Username != "" {
		options = append(options, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover), mail.WithUsername(s.Username), mail.WithPassword(password))
	}
	return mail.NewClient(host, options...)
}

func splitServer(server string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(server)
	if err != nil {
		return "", 0, err
	}
	port, err = strconv.Atoi(text)
	if err != nil || port < 1 || port > 65535 || host == "" {
		return "", 0, fmt.Errorf("%q is not host:port", server)
	}
	return host, port, nil
}
