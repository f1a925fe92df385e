package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/edgeclm/edgeclm/internal/alert"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// Bounds of webhooks.
const (
	maxAnswer     = 4 << 10
	maxSecretFile = 1 << 10
	maxCAFile     = 1 << 20
	maxRetryAfter = 6 * time.Hour
)

// Webhook posts the message as JSON, signed as Standard Webhooks 1.0 says
// (standardwebhooks.com).
type Webhook struct {
	URL        string
	SecretFile string // read at each message, so that a new secret needs no restart
	CAFile     string // "": the system's trust store
	Timeout    time.Duration
	Now        func() time.Time
}

// Name implements Channel.
func (Webhook) Name() string { return "webhook" }

// Send implements Channel.
func (w Webhook) Send(ctx context.Context, m Message) error {
	if err := w.send(ctx, m); err != nil {
		return fmt.Errorf("post to the webhook: %w", err)
	}
	return nil
}

func (w Webhook) send(ctx context.Context, m Message) error {
	body, err := m.body()
	if err != nil {
		return err
	}
	secret, err := readSecret(w.SecretFile)
	if err != nil {
		return err
	}
	defer clear(secret)
	config, err := tlsConfig(w.CAFile)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, w.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(body))
	if err != nil {
		return bare(err)
	}
	at := strconv.FormatInt(w.Now().Unix(), 10)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "edgeclm")
	request.Header.Set("webhook-id", m.Data.ID)
	request.Header.Set("webhook-timestamp", at)
	request.Header.Set("webhook-signature", Signature(secret, m.Data.ID, at, body))
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, DisableKeepAlives: true, ForceAttemptHTTP2: true,
		MaxResponseHeaderBytes: 16 << 10,
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{
		Transport: transport,
		// The signature is for this receiver and nobody whom it names.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	answer, err := client.Do(request)
	if err != nil {
		return bare(err)
	}
	defer answer.Body.Close()
	return w.judge(answer)
}

// judge turns an answer into an error, or none.
func (w Webhook) judge(answer *http.Response) error {
	code := answer.StatusCode
	if code >= 200 && code < 300 {
		return nil
	}
	said, _ := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	err := fmt.Errorf("HTTP status %d", code)
	if text := alert.Clean(w.mask(string(said)), 200); text != "" {
		err = fmt.Errorf("HTTP status %d: %s", code, text)
	}
	switch {
	case code == http.StatusRequestTimeout, code == http.StatusTooManyRequests, code < 400, code >= 500:
		if after := retryAfter(answer.Header.Get("Retry-After"), w.Now()); after > 0 {
			return &TryLater{after, err}
		}
		return err
	}
	return fmt.Errorf("%w: %w", ErrFinal, err)
}

// mask takes what the URL holds beyond its host out of an answer: many servers
// repeat it on the pages of their errors, and many webhooks carry a secret in it.
func (w Webhook) mask(said string) string {
	u, err := url.Parse(w.URL)
	if err != nil {
		return ""
	}
	parts := strings.FieldsFunc(u.RequestURI()+"/"+u.Path, func(r rune) bool { return strings.ContainsRune("/?&=;", r) })
	for _, values := range u.Query() {
		parts = append(parts, values...)
	}
	slices.SortFunc(parts, func(a, b string) int { return len(b) - len(a) })
	for _, part := range parts {
		if len(part) >= shortestSecret {
			said = strings.ReplaceAll(said, part, "***")
		}
	}
	return said
}

// shortestSecret is how long a part of a URL is that may be a secret, in bytes.
const shortestSecret = 6

// retryAfter reads the header of RFC 9110 section 10.2.3; 0 if it says nothing.
func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(0, min(at.Sub(now), maxRetryAfter))
	}
	return 0
}

// bare takes the URL out of an error: many webhooks carry a secret in it.
func bare(err error) error {
	var outer *url.Error
	if errors.As(err, &outer) {
		return outer.Err
	}
	return err
}

// Signature returns the signature of Standard Webhooks 1.0: HMAC-SHA256 over
// id.timestamp.body, in base64, after "v1,".
func Signature(secret []byte, id, timestamp string, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	fmt.Fprintf(mac, "%s.%s.", id, timestamp)
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// parseSecret reads "whsec_" and base64 of 24 to 64 bytes; the prefix may be
// missing, as in the libraries of the specification.
func parseSecret(text string) ([]byte, error) {
	secret, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(strings.TrimSpace(text), "whsec_"))
	if err != nil || len(secret) < 24 || len(secret) > 64 {
		return nil, errors.New("the secret is not whsec_ followed by base64 of 24 to 64 bytes (openssl rand -base64 32)")
	}
	return secret, nil
}

func readSecret(path string) ([]byte, error) {
	data, err := keyfile.ReadSecret(path, maxSecretFile)
	if err != nil {
		return nil, fmt.Errorf("read the webhook's secret: %w", err)
	}
	defer clear(data)
	return parseSecret(string(data))
}

// tlsConfig trusts the system's authorities, or only those of a file.
func tlsConfig(caFile string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile == "" {
		return config, nil
	}
	data, err := keyfile.Read(caFile, maxCAFile)
	if err != nil {
		return nil, fmt.Errorf("read the CA file: %w", err)
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("no certificate in %s", caFile)
	}
	return config, nil
}
