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
	"golang.org/x/net/netutil"
)

// Bounds of the listener.
const (
	// freshFor is how long a snapshot answers all who ask, so that many scrapes
	// cost the inventory one.
	freshFor       = 5 * time.Second
	maxConnections = 64
	maxScrapes     = 4 // at once
	readTimeout    = 10 * time.Second
	sendTimeout    = 30 * time.Second
	stopTimeout    = 5 * time.Second
)

// ErrEveryInterface says that an address without a host would listen on all interfaces.
var ErrEveryInterface = errors.New("the address has no host: say 127.0.0.1 for this host alone, or 0.0.0.0 for every interface")

// Listen listens for scrapes at host:port. There is neither TLS nor a password:
// the host should be this one's loopback, or a network of its own.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(address)
	if err == nil && host == "" {
		err = ErrEveryInterface
	}
	if err != nil {
		return nil, fmt.Errorf("listen for scrapes at %s: %w", address, err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for scrapes: %w", err)
	}
	return l, nil
}

// Server answers scrapes over HTTP, at /metrics, and at /-/healthy whether the
// program works.
type Server struct {
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
	mux.Handle("GET /metrics", limited(s.metrics(own), maxScrapes))
	mux.HandleFunc("GET /-/healthy", s.healthy)
	server := &http.Server{
		Handler: mux, ReadTimeout: readTimeout, WriteTimeout: sendTimeout, IdleTimeout: sendTimeout, MaxHeaderBytes: 16 << 10,
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
	err := server.Serve(netutil.LimitListener(l, maxConnections))
	if stop() || !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", errors.Join(err, server.Close()))
	}
	return <-stopped
}

// metrics answers a scrape with the fleet's metrics and the process' own.
func (s *Server) metrics(own prometheus.Gatherer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		fleet, err := s.fresh(r.Context())
		if err != nil {
			if r.Context().Err() == nil {
				s.Log.Error("read the inventory for metrics", "error", err)
			}
			http.Error(w, "the inventory cannot be read", http.StatusServiceUnavailable)
			return
		}
		promhttp.HandlerFor(prometheus.Gatherers{fleet, own}, promhttp.HandlerOpts{}).ServeHTTP(w, r)
	}
}

func (s *Server) healthy(w http.ResponseWriter, r *http.Request) {
	if s.Healthy != nil {
		if err := s.Healthy(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
	}
	_, _ = fmt.Fprintln(w, "edgeclm works")
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
	r, err := registry(snapshot)
	if err != nil {
		return nil, err
	}
	s.registry, s.read = r, now
	return r, nil
}
