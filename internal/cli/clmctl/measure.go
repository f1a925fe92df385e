package clmctl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/metrics"
)

// rowsAtOnce is how many devices are read at once for their certificates.
const rowsAtOnce = 1000

// writeTextfile writes the metrics for node_exporter, if that is configured.
func (k *keeper) writeTextfile(ctx context.Context) {
	path := k.site.Metrics.Textfile
	if path == "" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, measureWithin)
	defer cancel()
	snapshot, err := k.measure(ctx)
	if err == nil {
		err = metrics.WriteTextfile(path, snapshot)
	}
	if err != nil && !errors.Is(ctx.Err(), context.Canceled) {
		k.log.Error("write the metrics", "error", err)
	}
}

// serve answers scrapes until ctx ends, or the listener fails.
func (k *keeper) serve(ctx context.Context, healthy func(context.Context) error) {
	l, err := metrics.Listen(ctx, k.site.Metrics.Listen)
	if err != nil {
		k.log.Error("metrics are not served", "error", err)
		return
	}
	k.log.Info("metrics are served", "at", "http://"+l.Addr().String()+"/metrics")
	server := &metrics.Server{Snapshot: k.measure, Healthy: healthy, Now: k.Now, Log: k.log}
	if err := server.Serve(ctx, l); err != nil {
		k.log.Error("metrics are not served any more", "error", err)
	}
}

// measure reads the fleet's figures.
func (k *keeper) measure(ctx context.Context) (metrics.Snapshot, error) {
	now := k.Now()
	s := metrics.Snapshot{Version: clikit.Version().Version, Identity: k.identity}
	var err error
	if s.Census, err = k.records.Census(ctx, now, k.site.Policy.LongestWait()); err != nil {
		return s, err
	}
	// That is when the first certificate ends if the CA stops now.
	s.Runway = s.Census.FirstExpiry
	if s.DueSince, s.Lifetime, err = k.records.Patience(ctx, now); err != nil {
		return s, err
	}
	if s.Events, s.Steps, err = k.records.Tallies(ctx); err != nil {
		return s, err
	}
	if s.Certificates, err = k.certificates(ctx, now); err != nil {
		return s, err
	}
	if s.Authorities, err = k.health(ctx); err != nil {
		return s, err
	}
	if k.notifier != nil {
		counts, err := k.notifier.Counts()
		if err != nil {
			return s, fmt.Errorf("count the notifications: %w", err)
		}
		s.NotificationsWaiting, s.DeadLetters = counts.Waiting, counts.Dead
	}
	k.mu.Lock()
	s.Pass = k.pass
	k.mu.Unlock()
	return s, nil
}

// certificates sums up those of all devices.
func (k *keeper) certificates(ctx context.Context, now time.Time) (*metrics.Certificates, error) {
	sums := metrics.NewCertificates(now, k.site.Metrics.PerDeviceUpTo)
	for after := ""; ; {
		rows, err := k.records.Rows(ctx, after, rowsAtOnce)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			sums.Add(r)
		}
		if len(rows) < rowsAtOnce {
			return sums, nil
		}
		after = rows[len(rows)-1].Name
	}
}

// health describes the CAs.
func (k *keeper) health(ctx context.Context) ([]metrics.Authority, error) {
	known, err := k.site.dir.knownCAs(ctx, k.records)
	if err != nil {
		return nil, err
	}
	var out []metrics.Authority
	for _, ca := range known {
		a := metrics.Authority{Breaker: ca.breaker, Role: ca.role, Rate: perSecond(k.site.Limits.Rate)}
		certificates, err := ca.pins()
		if err != nil {
			return nil, err
		}
		for _, c := range certificates {
			if a.NotAfter.IsZero() || c.NotAfter.Before(a.NotAfter) {
				a.NotBefore, a.NotAfter = c.NotBefore, c.NotAfter
			}
		}
		out = append(out, a)
	}
	return out, nil
}

// perSecond is 0 if there is no limit.
func perSecond(r fleet.Rate) float64 {
	if r.N == 0 || r.Per <= 0 {
		return 0
	}
	return float64(r.N) / r.Per.Seconds()
}
