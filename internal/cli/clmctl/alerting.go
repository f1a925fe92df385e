package clmctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/edgeclm/edgeclm/internal/alert"
	"github.com/edgeclm/edgeclm/internal/store/oslock"
)

// tell finds out what somebody should know, and tells.
func (k *keeper) tell(ctx context.Context) {
	if k.notifier == nil {
		return
	}
	now := k.Now()
	gather, cancel := context.WithTimeout(ctx, gatherWithin)
	facts := k.facts(gather, now)
	cancel()
	if ctx.Err() != nil {
		return
	}
	send, cancel := context.WithTimeout(ctx, k.site.Notify.longest())
	defer cancel()
	if err := k.notifier.Observe(send, now, facts); err != nil && ctx.Err() == nil {
		k.log.Error("tell of alerts", "error", err)
	}
}

// longest is how long a pass waits for its notifications: two tries of the
// slowest channel, so that one that hangs keeps no other from its turn for
// good.
func (c notifyConfig) longest() time.Duration {
	const usual = 30 * time.Second
	slowest := usual
	if c.Exec != nil {
		slowest = max(slowest, c.Exec.Timeout)
	}
	if c.Webhook != nil {
		slowest = max(slowest, c.Webhook.Timeout)
	}
	return 2*slowest + gatherWithin
}

// tellOfLock looks for alerts in place of a renewing run that shows no sign of
// life, and that this process has found at the lock.
func (a *app) tellOfLock(ctx context.Context, s *site) {
	if _, quiet := quietHolder(s, a.Now()); !quiet {
		return // it looks after all of it itself
	}
	log := a.warnings()
	n := a.tellers(s, log)
	if n == nil {
		return
	}
	devices, err := s.dir.inventory(ctx, true)
	if err != nil {
		log.Error("look for alerts", "error", err)
		return
	}
	k := &keeper{app: a, site: s, records: devices, log: log, notifier: n, holds: true}
	k.tell(ctx)
	if err := devices.Close(); err != nil {
		log.Error("close the inventory", "error", err)
	}
}

// quietFor is how long a holder of the renewing lock may show no sign of life:
// it may have to wait for a device, and for the CA's rate.
func quietFor(s *site) time.Duration { return time.Hour + s.Timeout + s.Limits.Rate.Per }

// beat shows, once a minute at most, that this process goes on: it sets the
// times of the lock's file.
func (k *keeper) beat(now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if age := now.Sub(k.touched); !k.holds || age >= 0 && age < keepEvery {
		return
	}
	k.touched = now
	if err := os.Chtimes(k.site.dir.path(renewLock), now, now); err != nil {
		k.log.Warn("show that renewing goes on", "error", err)
	}
}

// quietHolder returns who holds the renewing lock without a sign of life, if
// somebody holds it.
func quietHolder(s *site, now time.Time) (alert.Lock, bool) {
	path := s.dir.path(renewLock)
	info, err := os.Stat(path)
	if err != nil || now.Sub(info.ModTime()).Abs() < quietFor(s) {
		return alert.Lock{}, false
	}
	note := oslock.ReadNote(path)
	if note.Since.IsZero() {
		return alert.Lock{}, false
	}
	return alert.Lock{Since: note.Since, Holder: fmt.Sprintf("process %d", note.PID)}, true
}

func (g *gathering) lock() error {
	if _, err := os.Stat(g.site.dir.path(renewLock)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at the lock: %w", err)
	}
	g.facts.Lock, _ = quietHolder(g.site, g.now)
	return nil
}
