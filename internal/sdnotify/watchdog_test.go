package sdnotify

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// The watchdog hears nothing while the program does not work, and hears again
// when it does.
func TestHungProgramStopsPinging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hung atomic.Bool
		var pings atomic.Int32
		works := func(ctx context.Context) error {
			if hung.Load() {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		go watch(ctx, time.Minute, slog.New(slog.DiscardHandler), works, func() error { pings.Add(1); return nil })
		for _, test := range []struct {
			hung bool
			want int32
		}{{false, 20}, {true, 0}, {false, 20}} {
			pings.Store(0)
			hung.Store(test.hung)
			time.Sleep(10*time.Minute + time.Second)
			synctest.Wait()
			if got := pings.Load(); got != test.want {
				t.Errorf("hung %v: %d pings in ten minutes, want %d", test.hung, got, test.want)
			}
		}
		cancel()
		synctest.Wait()
	})
}
