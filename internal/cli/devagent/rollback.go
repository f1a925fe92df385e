package devagent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/control"
)

func (a *app) rollbackCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rollback",
		Short: "Make the previous certificate the active one again",
		Long: `rollback restores the pair that was active before the last activation, and runs
the hooks for it. The CLM hears of it at its next contact. It works whether an
agent runs on the data directory or not.

The pair that it restores has no predecessor, so a second rollback is refused;
nothing alternates.`,
		Example: "  devagent rollback",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.openExisting(cmd)
			if err != nil {
				return err
			}
			return explain(a.rollback(cmd.Context(), c))
		},
	}
}

// Commands and codes of the control socket.
const (
	commandProvision = "provision"
	commandRollback  = "rollback"
	codeNoPrevious   = "no-previous"
)

// rolledBack is the result of rollback.
type rolledBack struct {
	Restored certificate  `json:"restored"`
	GivenUp  *bundle.Hash `json:"given_up"`
	Failure  *string      `json:"failure"` // of a hook, for the restored pair
}

func (a *app) rollback(ctx context.Context, c config) error {
	var r rolledBack
	err := control.Call(ctx, c.DataDir, commandRollback, nil, &r)
	var refusal *control.Error
	switch {
	case errors.Is(err, control.ErrNotRunning):
		r, err = a.rollbackStopped(ctx, c)
	case errors.As(err, &refusal) && refusal.Code == codeNoPrevious:
		err = clikit.WithHint(refusal, hintNoPrevious)
	}
	if err != nil {
		return err
	}
	fields := []clikit.Field{
		{Name: "restored", Value: r.Restored.SHA256.String()},
		{Name: "serial", Value: r.Restored.Serial},
		{Name: "not_after", Value: r.Restored.NotAfter.Format(time.RFC3339)},
	}
	givenUp := ""
	if r.GivenUp != nil {
		givenUp = r.GivenUp.String()
	}
	fields = append(fields, clikit.Field{Name: "given_up", Value: givenUp})
	if err := clikit.RenderRecord(a.Out, a.Output, r, fields...); err != nil {
		return err
	}
	if r.Failure != nil {
		return clikit.WithHint(fmt.Errorf("the previous certificate is active again, but not in use everywhere: %s", *r.Failure),
			"make the services load it by hand; the log of devagent serve has what the hooks printed")
	}
	return nil
}

// rollbackStopped rolls back where no agent runs.
func (a *app) rollbackStopped(ctx context.Context, c config) (r rolledBack, err error) {
	// What is written becomes the file of whoever runs this.
	if info, err := os.Stat(c.DataDir); err == nil {
		if owner, ok := info.Sys().(*syscall.Stat_t); ok && int64(owner.Uid) != int64(os.Geteuid()) {
			return r, clikit.WithHint(fmt.Errorf("%s belongs to user %d, and no agent runs there", c.DataDir, owner.Uid),
				"run this as that user, or start devagent serve first")
		}
	}
	cfg, err := a.agentConfig(c, a.Logger(a.Err))
	if err != nil {
		return r, err
	}
	cfg.Again = true
	device, err := agent.Open(cfg)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, device.Close()) }()
	return rollBackDevice(ctx, device)
}

func rollBackDevice(ctx context.Context, device *agent.Agent) (rolledBack, error) {
	done, err := device.RollbackByHand(ctx)
	if err != nil {
		return rolledBack{}, err
	}
	r := rolledBack{Restored: describe(done.Restored)}
	if done.GivenUp != nil {
		sum := describe(done.GivenUp).SHA256
		r.GivenUp = &sum
	}
	if done.Failure != nil {
		text := done.Failure.Error()
		r.Failure = &text
	}
	return r, nil
}

const hintNoPrevious = "only the pair before the last activation can come back; devagent status shows the active one"

// serveControl lets commands reach an agent at work, until stop is called. It
// is no reason not to serve that they cannot.
func (a *app) serveControl(ctx context.Context, dir string, device *agent.Agent, log *slog.Logger) (stop func()) {
	s := control.Server{Log: log, Handlers: map[string]control.Handler{
		commandProvision: func(ctx context.Context, argument json.RawMessage) (any, error) {
			return provisionDevice(ctx, device, argument)
		},
		commandRollback: func(ctx context.Context, _ json.RawMessage) (any, error) {
			r, err := rollBackDevice(ctx, device)
			if errors.Is(err, agent.ErrNoPrevious) {
				return nil, &control.Error{Code: codeNoPrevious, Text: err.Error()}
			}
			return r, err
		},
	}}
	if err := s.Listen(dir); err != nil {
		log.Error("commands on this device cannot reach the agent", "error", err)
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { s.Serve(ctx) })
	return func() {
		cancel()
		wg.Wait()
	}
}
