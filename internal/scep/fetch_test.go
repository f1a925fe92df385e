package scep

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/labca"
	"github.com/edgeclm/edgeclm/internal/pkimessage"
)

// TestFetch reads both forms of GetCACert.
func TestFetch(t *testing.T) {
	t.Parallel()
	for layout, want := range map[labca.Layout]int{labca.LayoutSingle: 1, labca.LayoutRA: 3} {
		ca := newLab(t, labca.Options{Layout: layout})
		info, err := Fetch(context.Background(), ca.url, HTTPOptions{}, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		if len(info.Certificates) != want || len(info.Warnings) != 0 || info.Date.IsZero() || !info.Capabilities.has(capPost) {
			t.Errorf("%s: %d certificates, warnings %q, capabilities %q, date %v", layout, len(info.Certificates), info.Warnings, info.Capabilities, info.Date)
		}
	}
}

// TestFetchRefusals: what answers is not a SCEP service, or none that can be
// used.
func TestFetchRefusals(t *testing.T) {
	t.Parallel()
	ca := newLab(t, labca.Options{Layout: labca.LayoutSingle})
	der := ca.Issuing().Raw
	answer := func(status int, kind, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("operation") == opGetCACaps {
				return
			}
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	empty, err := pkimessage.CertsOnly()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		want    error
		text    string
	}{
		{"a web page", answer(200, "text/html; charset=utf-8", "<html>"), ErrNotSCEP, "text/html"},
		{"nothing at all", answer(200, "", ""), ErrNotSCEP, "GetCACert"},
		{"not found", answer(404, "text/plain", "no such page"), ErrNotSCEP, "404: no such page"},
		{"a certificate with a tail", answer(200, typeCA, string(der)+"x"), ErrNotSCEP, "does not parse"},
		{"a certificate announced as PKCS#7", answer(200, typeCARA, string(der)), ErrNotSCEP, "malformed"},
		{"PKCS#7 without certificates", answer(200, typeCARA, string(empty)), ErrNotSCEP, "0 certificates"},
		{"PKCS#7 announced as a certificate", answer(200, typeCA, string(empty)), ErrNotSCEP, "does not parse"},
		{"too much", answer(200, typeCA, strings.Repeat("x", pkimessage.MaxMessage+1)), enrol.ErrCAUnavailable, "longer than"},
		{"redirects for ever", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.String(), http.StatusFound) }, enrol.ErrCAUnavailable, "too often"},
		{"redirects away", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://"+r.Host+r.URL.String(), http.StatusFound)
		}, enrol.ErrCAUnavailable, "another server"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(tt.handler)
			t.Cleanup(server.Close)
			_, err := Fetch(context.Background(), server.URL, HTTPOptions{Timeout: 10 * time.Second}, time.Now)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestFetchRedirect: within one server, a redirect is followed.
func TestFetchRedirect(t *testing.T) {
	t.Parallel()
	ca := newLab(t, labca.Options{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/old" {
			http.Redirect(w, r, labca.Path+"?"+r.URL.RawQuery, http.StatusMovedPermanently)
			return
		}
		ca.Handler().ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	if _, err := Fetch(context.Background(), server.URL+"/old", HTTPOptions{}, time.Now); err != nil {
		t.Error(err)
	}
}

// TestTLS: the server's certificate is held against the roots given, and
// without them against the system's.
func TestTLS(t *testing.T) {
	t.Parallel()
	ca := newLab(t, labca.Options{})
	server := httptest.NewUnstartedServer(ca.Handler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // the refused handshake
	server.StartTLS()
	t.Cleanup(server.Close)
	url := server.URL + labca.Path
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	if _, err := Fetch(context.Background(), url, HTTPOptions{Roots: roots}, time.Now); err != nil {
		t.Error(err)
	}
	if _, err := Fetch(context.Background(), url, HTTPOptions{}, time.Now); !errors.Is(err, enrol.ErrCAUnavailable) {
		t.Errorf("an unknown certificate: %v", err)
	}
}

func TestURL(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "ca.example", "ftp://ca.example/scep", "http://", "http://user:secret@ca.example/", "http://ca.example/#x",
		"http://ca.example/?operation=PKIOperation", "http://[::1", "http://ca.example/\x7f"} {
		if _, err := newEndpoint(bad, HTTPOptions{}, time.Now); !errors.Is(err, ErrURL) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, good := range []string{"http://ca.example/scep", "https://ca.example:8443/scep/scepca?profile=x", "http://[::1]:80"} {
		if _, err := newEndpoint(good, HTTPOptions{}, time.Now); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
}

func TestCapabilities(t *testing.T) {
	t.Parallel()
	tests := []struct {
		body string
		want Capabilities
		post bool
		warn int
	}{
		{"", nil, false, 2},
		{"AES\nPOSTPKIOperation\nSHA-256\n", Capabilities{"AES", "POSTPKIOperation", "SHA-256"}, true, 0},
		{"aes\r\npostpkioperation\r\nSha-256", Capabilities{"aes", "postpkioperation", "Sha-256"}, true, 0},
		{"SCEPStandard", Capabilities{"SCEPStandard"}, true, 0},
		{"DES3\nSHA-1", Capabilities{"DES3", "SHA-1"}, false, 2},
		{"<html>\n<body class=x>\n\n\x00", Capabilities{"<html>"}, false, 2},
		{strings.Repeat("x", 65) + "\nAES", Capabilities{"AES"}, false, 1},
	}
	for _, tt := range tests {
		got := parseCapabilities([]byte(tt.body))
		if !slices.Equal(got, tt.want) || got.has(capPost) != tt.post || len(got.warnings()) != tt.warn {
			t.Errorf("%q: %q, post %v, warnings %q", tt.body, got, got.has(capPost), got.warnings())
		}
	}
	if got := parseCapabilities([]byte(strings.Repeat("X\n", 1000))); len(got) != maxCapabilities {
		t.Errorf("%d capabilities", len(got))
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ahead := now.Add(time.Hour) // the server's clock
	for value, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, "-7": 0, "soon": 0, "1e3": 0, "999999999999": 0,
		"86401": maxRetryAfter,
		ahead.Add(time.Minute).Format(http.TimeFormat):  time.Minute,
		ahead.Add(-time.Minute).Format(http.TimeFormat): 0,
	} {
		if got := retryAfter(value, ahead, now); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
	if got := retryAfter(now.Add(time.Minute).Format(http.TimeFormat), time.Time{}, now); got != time.Minute {
		t.Errorf("without the server's clock: %v", got)
	}
}
