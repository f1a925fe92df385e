package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Bounds of the listener.
const (
	// freshFor is how long a snapshot answers all who ask, so that many scrapes
	// cost the inventory one.
	freshFor    = 5 * time.Second
	maxScrapes  = 4 // at once
	readTimeout = 10 * time.Second
	sendTimeout = 30 * time.Second
	stopTimeout = 5 * time.Second
)

// Server answers scrapes over HTTP, at /metrics, and at /-/healthy whether the
// program works.
type Server struct {
	Options
	// Snapshot reads the fleet.
	Snapshot func(ctx context.Context) (Snapshot, error)
	// Healthy returns why the program does not work; nil: nobody knows.
	Healthy func(ctx context.Context) error
	Now     func() time.Time
	Log     *slog.Logger

	mu       sync.Mutex
	registry *prometheus.Registry // of the last snapshot
	read     time.Time            // when it was read
}

// Serve answers on a listener, which it closes, until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	own := prometheus.NewRegistry()
	if err := errors.Join(own.Register(collectors.NewGoCollector()), own.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))); err != nil {
		return errors.Join(fmt.Errorf("register metrics of the process: %w", err), l.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		fleet, err := s.fresh(r.Context())
		if err != nil {
			s.Log.Error("read the inventory for metrics", "error", err)
			http.Error(w, "the inventory cannot be read", http.StatusServiceUnavailable)
			return
		}
		promhttp.HandlerFor(prometheus.Gatherers{fleet, own}, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	})
	mux.HandleFunc("GET /-/healthy", func(w http.ResponseWriter, r *http.Request) {
		if s.Healthy != nil {
			if err := s.Healthy(r.Context()); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
		}
		_, _ = fmt.Fprintln(w, "edgeclm works")
	})
	server := &http.Server{
		Handler: limited(mux, maxScrapes), ReadTimeout: readTimeout, WriteTimeout: sendTimeout, IdleTimeout: sendTimeout, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		err := server.Shutdown(grace)
		if err != nil {
			err = server.Close()
		}
		stopped <- err
	})
	err := server.Serve(l)
	if stop() || !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return <-stopped
}

// limited answers so many requests at once, and turns others away.
func limited(h http.Handler, most int) http.Handler {
	slots := make(chan struct{}, most)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			h.ServeHTTP(w, r)
		default:
			http.Error(w, "too many requests at once", http.StatusServiceUnavailable)
		}
	})
}

// fresh returns the metrics of a snapshot that is not old.
func (s *Server) fresh(ctx context.Context) (*prometheus.Registry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.Now()
	if age := now.Sub(s.read); s.registry != nil && age >= 0 && age < freshFor {
		return s.registry, nil
	}
	snapshot, err := s.Snapshot(ctx)
	if err != nil {
		return nil, err
	}
	r, err := registry(snapshot, s.Options)
	if err != nil {
		return nil, err
	}
	s.registry, s.read = r, now
	return r, nil
}
