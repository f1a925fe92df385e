package sdnotify

import (
	"context"
	"log/slog"
	"time"
)

// watch pings the service manager's watchdog while the program works, twice as
// often as it asks for, until the context ends.
func watch(ctx context.Context, every time.Duration, log *slog.Logger, works func(context.Context) error, ping func() error) {
	ticker := time.NewTicker(every / 2)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		check, cancel := context.WithTimeout(ctx, every/4)
		err := works(check)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			log.Error("the watchdog is not told that all is well", "error", err)
			continue
		}
		if err := ping(); err != nil {
			log.Warn("watchdog", "error", err)
		}
	}
}

// Supervise tells the service manager that the program serves, and keeps its
// watchdog content as long as works returns no error, until stop is called.
func (n Notifier) Supervise(ctx context.Context, log *slog.Logger, status string, works func(context.Context) error) (stop func()) {
	if err := n.Notify(Ready, Status(status)); err != nil {
		log.Warn("tell the service manager", "error", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if n.Interval > 0 {
			watch(ctx, n.Interval, log, works, func() error { return n.Notify(Watchdog) })
		}
	}()
	return func() {
		cancel()
		<-done
	}
}
