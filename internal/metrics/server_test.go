package metrics_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/metrics"
	"github.com/edgeclm/edgeclm/internal/testpeer"
)

// serve runs a server on loopback and returns where; stop ends it and returns
// its error.
func serve(t *testing.T, s *metrics.Server) (url string, stop func() error) {
	t.Helper()
	s.Log = slog.New(slog.DiscardHandler)
	if s.Now == nil {
		s.Now = start
	}
	l, err := metrics.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String(), stop
}

func request(t *testing.T, method, url string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

func fixed(context.Context) (metrics.Snapshot, error) { return full(), nil }

func TestListen(t *testing.T) {
	t.Parallel()
	if _, err := metrics.Listen(t.Context(), ":9845"); !errors.Is(err, metrics.ErrEveryInterface) {
		t.Errorf("every interface, unasked: %v", err)
	}
	for _, address := range []string{"", "127.0.0.1", "127.0.0.1:99999"} {
		if l, err := metrics.Listen(t.Context(), address); err == nil {
			t.Errorf("%q: listens at %v", address, l.Addr())
		}
	}
}

func TestScrape(t *testing.T) {
	t.Parallel()
	url, stop := serve(t, &metrics.Server{Snapshot: fixed})
	status, body := request(t, http.MethodGet, url+"/metrics")
	if status != http.StatusOK {
		t.Fatalf("%d: %s", status, body)
	}
	// The fleet's metrics as in the textfile, and the process' own.
	var fleet strings.Builder
	for line := range strings.Lines(body) {
		if strings.Contains(line, "edgeclm_") {
			fleet.WriteString(line)
		}
	}
	if fleet.String() != exposition(t, full()) {
		t.Errorf("not as in the textfile:\n%s", fleet.String())
	}
	if !strings.Contains(body, "\ngo_goroutines ") {
		t.Error("nothing about the process")
	}
	if out, ok := testpeer.Promtool(t, strings.NewReader(body), "check", "metrics"); !ok {
		t.Errorf("promtool: %s", out)
	}
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://")); err == nil {
		_ = conn.Close()
		t.Error("it listens after its end")
	}
}

func TestOnlyWhatIsServed(t *testing.T) {
	t.Parallel()
	url, _ := serve(t, &metrics.Server{Snapshot: fixed})
	for _, tt := range []struct {
		method, path string
		want         int
	}{
		{http.MethodGet, "/-/healthy", http.StatusOK},
		{http.MethodHead, "/metrics", http.StatusOK},
		{http.MethodPost, "/metrics", http.StatusMethodNotAllowed},
		{http.MethodDelete, "/-/healthy", http.StatusMethodNotAllowed},
		{http.MethodGet, "/", http.StatusNotFound},
		{http.MethodGet, "/metrics/x", http.StatusNotFound},
		{http.MethodGet, "/debug/pprof/", http.StatusNotFound},
	} {
		if status, _ := request(t, tt.method, url+tt.path); status != tt.want {
			t.Errorf("%s %s: %d, want %d", tt.method, tt.path, status, tt.want)
		}
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	var sick atomic.Bool
	url, _ := serve(t, &metrics.Server{Snapshot: fixed, Healthy: func(context.Context) error {
		if sick.Load() {
			return errors.New("the loop hangs")
		}
		return nil
	}})
	if status, body := request(t, http.MethodGet, url+"/-/healthy"); status != http.StatusOK {
		t.Errorf("%d: %s", status, body)
	}
	sick.Store(true)
	if status, body := request(t, http.MethodGet, url+"/-/healthy"); status != http.StatusServiceUnavailable || body != "the loop hangs\n" {
		t.Errorf("%d: %s", status, body)
	}
}

// TestInventoryUnreadable: a scrape fails, in words that tell a stranger
// nothing, and the next one works again.
func TestInventoryUnreadable(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	broken.Store(true)
	url, _ := serve(t, &metrics.Server{Snapshot: func(context.Context) (metrics.Snapshot, error) {
		if broken.Load() {
			return metrics.Snapshot{}, errors.New("/var/lib/secret: damaged")
		}
		return full(), nil
	}})
	if status, body := request(t, http.MethodGet, url+"/metrics"); status != http.StatusServiceUnavailable || strings.Contains(body, "secret") {
		t.Errorf("%d: %s", status, body)
	}
	broken.Store(false)
	if status, _ := request(t, http.MethodGet, url+"/metrics"); status != http.StatusOK {
		t.Errorf("again: %d", status)
	}
}

// TestScrapesShareASnapshot: within five seconds the inventory is read once; a
// clock that is set back does not make an old snapshot fresh.
func TestScrapesShareASnapshot(t *testing.T) {
	t.Parallel()
	var reads, offset atomic.Int64
	url, _ := serve(t, &metrics.Server{
		Now: func() time.Time { return start().Add(time.Duration(offset.Load())) },
		Snapshot: func(ctx context.Context) (metrics.Snapshot, error) {
			reads.Add(1)
			return fixed(ctx)
		},
	})
	for _, step := range []struct {
		at   time.Duration
		want int64
	}{{0, 1}, {4 * time.Second, 1}, {5 * time.Second, 2}, {9 * time.Second, 2}, {-time.Hour, 3}} {
		offset.Store(int64(step.at))
		if status, body := request(t, http.MethodGet, url+"/metrics"); status != http.StatusOK || reads.Load() != step.want {
			t.Errorf("at %v: %d reads, want %d; %d %.100s", step.at, reads.Load(), step.want, status, body)
		}
	}
}

// TestManyScrapesAtOnce: four wait for a slow inventory, the next is turned
// away, whether the program works is told all the same; and the end of the
// server ends them.
func TestManyScrapesAtOnce(t *testing.T) {
	t.Parallel()
	const most = 4
	release := make(chan struct{})
	url, stop := serve(t, &metrics.Server{Snapshot: func(ctx context.Context) (metrics.Snapshot, error) {
		select {
		case <-release:
		case <-ctx.Done():
			return metrics.Snapshot{}, ctx.Err()
		}
		return fixed(ctx)
	}})
	answers := make(chan int, 20)
	for range cap(answers) {
		go func() {
			resp, err := http.Get(url + "/metrics")
			if err != nil {
				answers <- 0
				return
			}
			_ = resp.Body.Close()
			answers <- resp.StatusCode
		}()
	}
	answer := func() int {
		t.Helper()
		select {
		case status := <-answers:
			return status
		case <-time.After(time.Minute):
			t.Fatal("no answer: more wait than may")
			return 0
		}
	}
	for range cap(answers) - most {
		if status := answer(); status != http.StatusServiceUnavailable {
			t.Fatalf("%d", status)
		}
	}
	if status, _ := request(t, http.MethodGet, url+"/-/healthy"); status != http.StatusOK {
		t.Errorf("while scrapes wait: %d", status)
	}
	close(release)
	for range most {
		if status := answer(); status != http.StatusOK {
			t.Errorf("one that waited: %d", status)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestListenerFails: an error that is not the end of ctx is told.
func TestListenerFails(t *testing.T) {
	t.Parallel()
	l, err := metrics.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s := &metrics.Server{Snapshot: fixed, Now: start, Log: slog.New(slog.DiscardHandler)}
	if err := s.Serve(t.Context(), l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v", err)
	}
}
