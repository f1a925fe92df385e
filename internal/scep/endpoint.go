package scep

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/pkimessage"
)

// HTTPOptions are the ones of the transport.
type HTTPOptions struct {
	Timeout time.Duration  // of one exchange; 0: 30 s
	Roots   *x509.CertPool // of the server, for https; nil: the system's
}

const (
	defaultTimeout = 30 * time.Second
	maxIdle        = 64 // connections kept open: one for each concurrent enrolment
	maxRedirects   = 3
	maxRetryAfter  = 24 * time.Hour
	maxShownText   = 200 // bytes of a server's error text that are passed on
)

// Operations of SCEP (RFC 8894 section 4.1).
const (
	opGetCACaps    = "GetCACaps"
	opGetCACert    = "GetCACert"
	opPKIOperation = "PKIOperation"
)

// ErrURL is wrapped by every refusal of a SCEP URL.
var ErrURL = errors.New("not the URL of a SCEP service")

// errStatus is wrapped by the error of an answer that is only an HTTP status.
var errStatus = errors.New("HTTP status")

// endpoint is the HTTP side of a SCEP service.
type endpoint struct {
	url  *url.URL
	http *http.Client
	now  func() time.Time
}

// response is the answer to one HTTP request, its body whole.
type response struct {
	status int
	kind   string // media type
	body   []byte
	date   time.Time     // zero if not told
	after  time.Duration // Retry-After; 0 if not told
}

func newEndpoint(rawURL string, o HTTPOptions, now func() time.Time) (*endpoint, error) {
	u, err := url.Parse(rawURL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: it does not parse", ErrURL)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("%w: it begins with http:// or https:// and a host", ErrURL)
	case u.User != nil || u.Fragment != "" || u.Query().Has("operation"):
		return nil, fmt.Errorf("%w: it has no user, fragment or operation", ErrURL)
	}
	base, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		base = &http.Transport{}
	}
	transport := base.Clone()
	transport.MaxIdleConnsPerHost = maxIdle
	transport.ResponseHeaderTimeout = cmp.Or(o.Timeout, defaultTimeout)
	if o.Roots != nil {
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.Roots}
	}
	return &endpoint{
		url: u,
		now: now,
		http: &http.Client{
			Transport:     transport,
			Timeout:       cmp.Or(o.Timeout, defaultTimeout),
			CheckRedirect: sameHost,
		},
	}, nil
}

// sameHost follows a few redirects, but never to another server: that would
// choose its own who gets the request.
func sameHost(req *http.Request, via []*http.Request) error {
	first := via[0].URL
	if req.URL.Scheme != first.Scheme || req.URL.Host != first.Host {
		return fmt.Errorf("it redirects to another server, %.100q", req.URL.Host)
	}
	if len(via) > maxRedirects {
		return errors.New("it redirects too often")
	}
	return nil
}

// get performs an operation with GET; message is empty or base64.
func (e *endpoint) get(ctx context.Context, operation, message string) (*response, error) {
	return e.do(ctx, http.MethodGet, operation, message, nil)
}

// pkiOperation sends a pkiMessage, with POST if the CA can.
func (e *endpoint) pkiOperation(ctx context.Context, message []byte, post bool) (*response, error) {
	if post {
		return e.do(ctx, http.MethodPost, opPKIOperation, "", message)
	}
	return e.get(ctx, opPKIOperation, base64.StdEncoding.EncodeToString(message))
}

func (e *endpoint) do(ctx context.Context, method, operation, message string, body []byte) (*response, error) {
	u := *e.url
	q := u.Query()
	q.Set("operation", operation)
	if message != "" {
		q.Set("message", message)
	}
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", enrol.ErrCAUnavailable, operation, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/x-pki-message")
	}
	res, err := e.http.Do(req)
	if err != nil {
		// The URL of the error would repeat the whole message.
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return nil, fmt.Errorf("%w: %s at %s: %w", enrol.ErrCAUnavailable, operation, e.url.Host, err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(res.Body, pkimessage.MaxMessage+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %s at %s: %w", enrol.ErrCAUnavailable, operation, e.url.Host, err)
	}
	if len(b) > pkimessage.MaxMessage {
		return nil, fmt.Errorf("%w: %s at %s: an answer longer than %d bytes", enrol.ErrCAUnavailable, operation, e.url.Host, pkimessage.MaxMessage)
	}
	out := &response{status: res.StatusCode, body: b}
	out.kind, _, _ = mime.ParseMediaType(res.Header.Get("Content-Type"))
	out.date, _ = http.ParseTime(res.Header.Get("Date"))
	out.after = retryAfter(res.Header.Get("Retry-After"), out.date, e.now())
	return out, nil
}

// retryAfter reads the header (RFC 9110 section 10.2.3): seconds, or a date,
// which is held against the server's own clock if that is known.
func retryAfter(value string, date, now time.Time) time.Duration {
	var after time.Duration
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		after = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(value); err == nil {
		if date.IsZero() {
			date = now
		}
		after = at.Sub(date)
	}
	return min(max(after, 0), maxRetryAfter)
}

// failure is the error of an answer that says nothing of SCEP.
func (e *endpoint) failure(operation string, r *response) error {
	err := fmt.Errorf("%w: %s at %s: %w %d%s", enrol.ErrCAUnavailable, operation, e.url.Host, errStatus, r.status, shown(r))
	busy := r.status == http.StatusServiceUnavailable || r.status == http.StatusTooManyRequests
	if busy && r.after > 0 {
		return &enrol.TryLater{After: r.after, Err: err}
	}
	return err
}

// shown returns the first line of a plain text, for an error.
func shown(r *response) string {
	if r.kind != "text/plain" {
		return ""
	}
	line, _, _ := strings.Cut(string(r.body), "\n")
	if line = clean(line); line == "" {
		return ""
	}
	return ": " + line
}

// clean makes text from outside fit to be shown: one line, bounded, nothing
// that a terminal would obey.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if s = strings.TrimSpace(s); len(s) > maxShownText {
		s = strings.ToValidUTF8(s[:maxShownText], "") + "..."
	}
	return s
}
