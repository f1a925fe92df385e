package scep

import (
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/smallstep/scep"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/labca"
	"github.com/edgeclm/edgeclm/internal/pkimessage"
)

// TestRejection: a refusal names the reason, and never the challenge.
func TestRejection(t *testing.T) {
	t.Parallel()
	ca := newLab(t, labca.Options{})
	client := connect(t, ca.url, Fingerprint(ca.Root()))
	_, err := client.Submit(context.Background(), submission(newCSR(t, nil, "wrong guess")))
	var rejection *enrol.CARejection
	if !errors.As(err, &rejection) || rejection.FailInfo != "badRequest" || !strings.Contains(rejection.Text, "challenge") {
		t.Fatalf("got %v", err)
	}
	if strings.Contains(err.Error(), "wrong guess") || strings.Contains(err.Error(), testChallenge) {
		t.Errorf("the error tells a challenge: %v", err)
	}
}

// TestRejectionTexts: every failInfo has words, unknown ones too, and what the
// CA says is made harmless.
func TestRejectionTexts(t *testing.T) {
	t.Parallel()
	csr := newCSR(t, nil, "s3cret")
	tests := []struct {
		info       scep.FailInfo
		text       string
		name, want string
	}{
		{scep.BadAlg, "", "badAlg", "algorithm"},
		{scep.BadMessageCheck, "", "badMessageCheck", "RA certificate"},
		{scep.BadRequest, "no s3cret here", "badRequest", "no [challenge] here"},
		{scep.BadTime, "", "badTime", "clock"},
		{scep.BadCertID, "", "badCertId", "no such"},
		{"17", "\x1b[31mred\nline", `failInfo "17"`, "[31mred line"},
		{"", strings.Repeat("x", 5000), `failInfo ""`, "..."},
	}
	for _, tt := range tests {
		var got *enrol.CARejection
		err := rejection(&pkimessage.Message{FailInfo: tt.info, FailText: tt.text}, parsed(t, csr))
		if !errors.As(err, &got) || got.FailInfo != tt.name || !strings.Contains(got.Text, tt.want) || strings.ContainsAny(got.Text, "\x1b\n") || len(got.Text) > 400 {
			t.Errorf("%q %q: %v", tt.info, tt.text, err)
		}
	}
}

// TestFailureUnder500: a signed refusal counts under whatever HTTP status.
func TestFailureUnder500(t *testing.T) {
	t.Parallel()
	ca := newLab(t, labca.Options{Hostile: labca.FailureUnder500})
	client := connect(t, ca.url, Fingerprint(ca.Root()))
	_, err := client.Submit(context.Background(), submission(newCSR(t, nil, testChallenge)))
	var rejection *enrol.CARejection
	if !errors.As(err, &rejection) || !strings.Contains(rejection.Text, "not today") {
		t.Errorf("got %v", err)
	}
}

// TestTryLater: a busy CA says when to come back.
func TestTryLater(t *testing.T) {
	t.Parallel()
	ca := newLab(t, labca.Options{Hostile: labca.Busy})
	client := connect(t, ca.url, Fingerprint(ca.Root()))
	_, err := client.Submit(context.Background(), submission(newCSR(t, nil, testChallenge)))
	var later *enrol.TryLater
	if !errors.As(err, &later) || later.After != 7*time.Second || !errors.Is(err, enrol.ErrCAUnavailable) {
		t.Errorf("got %v", err)
	}
}

// TestUnavailable: no answer, or none of SCEP, is no judgement on the request.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	ca := newLab(t, labca.Options{})
	var status atomic.Int32
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			http.Error(w, "sorry\nsecond line", int(status.Load()))
			return
		}
		ca.Handler().ServeHTTP(w, r)
	}))
	client := connect(t, front.URL+labca.Path, Fingerprint(ca.Root()))
	s := submission(newCSR(t, nil, testChallenge))
	for _, code := range []int32{400, 404, 500, 502, 503} {
		status.Store(code)
		_, err := client.Submit(context.Background(), s)
		if !errors.Is(err, enrol.ErrCAUnavailable) || !strings.Contains(err.Error(), "sorry") || strings.Contains(err.Error(), "second") {
			t.Errorf("%d: %v", code, err)
		}
	}
	front.Close()
	if _, err := client.Submit(context.Background(), s); !errors.Is(err, enrol.ErrCAUnavailable) {
		t.Errorf("server gone: %v", err)
	}
}

// TestPending: PENDING is told, then CertPoll gets the certificate.
func TestPending(t *testing.T) {
	t.Parallel()
	ca := newLab(t, labca.Options{Pending: 2})
	var kinds recorder
	client := connect(t, kinds.before(t, ca, nil), Fingerprint(ca.Root()))
	submitPending(t, client)
	if got := kinds.string(); got != "19 20 20" {
		t.Errorf("the CA saw message types %s", got)
	}
}

// TestPendingWithoutCertPoll: a CA that knows no CertPoll, and says so in one
// way or another, gets the request again.
func TestPendingWithoutCertPoll(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]func(w http.ResponseWriter, r *http.Request, ca lab){
		"HTTP error": func(w http.ResponseWriter, _ *http.Request, _ lab) {
			http.Error(w, "not implemented", http.StatusInternalServerError)
		},
		"signed refusal": func(w http.ResponseWriter, r *http.Request, ca lab) {
			ca.SetHostile(labca.FailureUnder500)
			defer ca.SetHostile(labca.Honest)
			ca.Handler().ServeHTTP(w, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ca := newLab(t, labca.Options{Pending: 1})
			var kinds recorder
			client := connect(t, kinds.before(t, ca, refuse), Fingerprint(ca.Root()))
			submitPending(t, client)
			if got := kinds.string(); !strings.HasPrefix(got, "19 20 19") {
				t.Errorf("the CA saw message types %s", got)
			}
		})
	}
}

// submitPending submits until the certificate is there.
func submitPending(t *testing.T, client *Client) {
	t.Helper()
	csr := newCSR(t, nil, testChallenge)
	s := submission(csr)
	for range 5 {
		answer, err := client.Submit(context.Background(), s)
		if err != nil {
			t.Fatal(err)
		}
		if !answer.Pending {
			if !s.Pending {
				t.Error("never pending")
			}
			if _, err := preVerify(t, client, csr, answer); err != nil {
				t.Error(err)
			}
			return
		}
		s.Pending = true
	}
	t.Error("pending for ever")
}

// recorder notes the message types that a CA is sent.
type recorder struct {
	mu    sync.Mutex
	kinds []string
}

func (k *recorder) string() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return strings.Join(k.kinds, " ")
}

// before puts the recorder in front of a CA, and refuse in the place of its
// CertPoll.
func (k *recorder) before(t *testing.T, ca lab, refuse func(http.ResponseWriter, *http.Request, lab)) (url string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return
			}
			m, err := pkimessage.ParseRequest(body)
			if err != nil {
				t.Error(err)
				return
			}
			k.mu.Lock()
			k.kinds = append(k.kinds, string(m.Type))
			k.mu.Unlock()
			r.Body = io.NopCloser(strings.NewReader(string(body)))
			if m.Type == scep.CertPoll && refuse != nil {
				refuse(w, r, ca)
				return
			}
		}
		ca.Handler().ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL + labca.Path
}

// TestGet: a CA without POSTPKIOperation is asked with GET.
func TestGet(t *testing.T) {
	t.Parallel()
	ca := newLab(t, labca.Options{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method != http.MethodGet:
			http.Error(w, "GET only", http.StatusMethodNotAllowed)
		case r.URL.Query().Get("operation") == opGetCACaps:
			http.NotFound(w, r)
		default:
			ca.Handler().ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	client := connect(t, server.URL+labca.Path, Fingerprint(ca.Root()))
	csr := newCSR(t, nil, testChallenge)
	answer, err := client.Submit(context.Background(), submission(csr))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := preVerify(t, client, csr, answer); err != nil {
		t.Error(err)
	}
}

// TestClockAhead: a CA an hour ahead is no obstacle, and its clock is told.
func TestClockAhead(t *testing.T) {
	t.Parallel()
	for _, offset := range []time.Duration{time.Hour, -time.Hour, 70 * 365 * 24 * time.Hour} {
		now := time.Now().Add(offset).Truncate(time.Second)
		ca := newLab(t, labca.Options{Now: func() time.Time { return now }})
		client := connect(t, ca.url, Fingerprint(ca.Root()))
		csr := newCSR(t, nil, testChallenge)
		answer, err := client.Submit(context.Background(), submission(csr))
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := preVerify(t, client, csr, answer)
		if err != nil {
			t.Fatal(err)
		}
		if !answer.Date.Equal(now) || !leaf.NotBefore.Equal(now) {
			t.Errorf("date %v, NotBefore %v, want %v", answer.Date, leaf.NotBefore, now)
		}
	}
}

// countingKey counts private operations.
type countingKey struct {
	RA
	n *atomic.Int32
}

func (k countingKey) Public() crypto.PublicKey { return k.Key.Public() }

func (k countingKey) Sign(r io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	k.n.Add(1)
	return k.Key.Sign(r, digest, o)
}

func (k countingKey) Decrypt(r io.Reader, b []byte, o crypto.DecrypterOpts) ([]byte, error) {
	k.n.Add(1)
	return k.Key.Decrypt(r, b, o)
}

// TestPrivateOperations: an enrolment signs once and decrypts once.
func TestPrivateOperations(t *testing.T) {
	t.Parallel()
	ca := newLab(t, labca.Options{})
	client := connect(t, ca.url, Fingerprint(ca.Root()))
	var n atomic.Int32
	client.signer.Key = countingKey{RA: testRA(), n: &n}
	client.decrypter = countingKey{RA: testRA(), n: &n}
	if _, err := client.Submit(context.Background(), submission(newCSR(t, nil, testChallenge))); err != nil {
		t.Fatal(err)
	}
	if n.Load() != 2 {
		t.Errorf("%d private operations, want 2", n.Load())
	}
}

// TestConcurrent: one client serves many goroutines, each its own answer.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	ca := newLab(t, labca.Options{})
	client := connect(t, ca.url, Fingerprint(ca.Root()))
	var wg sync.WaitGroup
	for range 16 {
		csr := newCSR(t, nil, testChallenge)
		wg.Go(func() {
			answer, err := client.Submit(context.Background(), submission(csr))
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := preVerify(t, client, csr, answer); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// TestSubmitRefusals: what no CA should be sent is refused before.
func TestSubmitRefusals(t *testing.T) {
	t.Parallel()
	ca := newLab(t, labca.Options{})
	client := connect(t, ca.url, Fingerprint(ca.Root()))
	csr := newCSR(t, nil, testChallenge)
	for name, s := range map[string]enrol.Submission{
		"base64 transaction": {TransactionID: "q+/=", CSR: csr},
		"no transaction":     {CSR: csr},
		"long transaction":   {TransactionID: strings.Repeat("00", 100), CSR: csr},
		"no CSR":             {TransactionID: "00"},
	} {
		if _, err := client.Submit(context.Background(), s); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	client.random = strings.NewReader("short")
	if _, err := client.Submit(context.Background(), submission(csr)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("without randomness: %v", err)
	}
}

// TestNewRefusals: a client is not made of parts that do not fit.
func TestNewRefusals(t *testing.T) {
	t.Parallel()
	ca := newLab(t, labca.Options{})
	good := Config{URL: ca.url, Anchor: ca.Root().Raw, Certificates: [][]byte{ca.Issuing().Raw, ca.RA().Raw}, RA: testRA()}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	other, err := GenerateRA(rand.Reader, "other")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   error
	}{
		{"no URL", func(c *Config) { c.URL = "" }, ErrURL},
		{"no RA", func(c *Config) { c.RA = RA{} }, ErrRA},
		{"another's certificate", func(c *Config) { c.RA.Certificate = other.Certificate }, ErrRA},
		{"no anchor", func(c *Config) { c.Anchor = nil }, ErrAuthority},
		{"certificates that do not parse", func(c *Config) { c.Certificates = [][]byte{{0x30}} }, ErrAuthority},
		{"ECDSA CA without RA", func(c *Config) { c.Certificates = c.Certificates[:1] }, ErrAuthority},
		{"RA of another CA", func(c *Config) { c.Anchor = other.Certificate.Raw }, ErrAuthority},
	} {
		c := good
		tt.change(&c)
		if _, err := New(c); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestChallenge: the challenge comes from where the configuration says.
func TestChallenge(t *testing.T) {
	t.Parallel()
	ca := newLab(t, labca.Options{})
	client := connect(t, ca.url, Fingerprint(ca.Root()))
	if got, err := client.Challenge(context.Background(), "plc-0001"); err != nil || string(got) != testChallenge {
		t.Errorf("%q, %v", got, err)
	}
	client.challenge = nil
	if got, err := client.Challenge(context.Background(), "plc-0001"); err != nil || got != nil {
		t.Errorf("%q, %v", got, err)
	}
}
