package devagent

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/sdnotify"
)

// longestRequest is more than any request takes without its hooks: an RSA-4096
// key on the slowest of devices.
const longestRequest = 15 * time.Minute

// longestTurn is after how long a request is not slow but hung: each consumer's
// hook may run twice.
func (c config) longestTurn() time.Duration {
	return longestRequest + time.Duration(2*(len(c.Consumers)+1))*(c.HookTimeout+5*time.Second)
}

// alive returns why the agent does not work any more, nil if it does: no
// request has been at it for longer than that, and the socket is read.
func alive(ctx context.Context, device *agent.Agent, server *coaplink.Server, longest time.Duration) error {
	if busy := device.Busy(); busy > longest {
		return fmt.Errorf("a request has been hanging for %v", busy.Round(time.Second))
	}
	return server.Alive(ctx)
}

// watch pings the service manager's watchdog while the agent works, twice as
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

// supervise tells the service manager that the agent serves, and keeps its
// watchdog content until stop is called.
func supervise(ctx context.Context, n sdnotify.Notifier, log *slog.Logger, status string, works func(context.Context) error) (stop func()) {
	if err := n.Notify(sdnotify.Ready, sdnotify.Status(status)); err != nil {
		log.Warn("tell the service manager", "error", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if n.Interval > 0 {
			watch(ctx, n.Interval, log, works, func() error { return n.Notify(sdnotify.Watchdog) })
		}
	}()
	return func() {
		cancel()
		<-done
	}
}
