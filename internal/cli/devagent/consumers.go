package devagent

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/consumer"
)

// fileConsumer is a service that uses the active pair, in the configuration
// file; docs/consumers.md describes it.
type fileConsumer struct {
	Name           string            `yaml:"name"`
	Dir            string            `yaml:"dir"`
	Files          []string          `yaml:"files"`
	Links          map[string]string `yaml:"links"`
	Owner          string            `yaml:"owner"`
	Group          string            `yaml:"group"`
	Mode           string            `yaml:"mode"`     // octal
	KeyMode        string            `yaml:"key_mode"` // octal
	PKCS12Password string            `yaml:"pkcs12_password_file"`
	Hook           string            `yaml:"hook"` // command, see splitCommand
}

// consumers returns who uses the active pair: whoever the reload hook stands
// for, then those of the list.
func (c config) consumers() ([]consumer.Consumer, error) {
	argv, err := splitCommand(c.ReloadHook)
	if err != nil {
		return nil, fmt.Errorf("reload_hook: %w", err)
	}
	var out []consumer.Consumer
	if len(argv) > 0 {
		out = append(out, consumer.Consumer{Hook: argv})
	}
	for _, f := range c.Consumers {
		parsed, err := f.parse()
		if err != nil {
			return nil, fmt.Errorf("consumers: %q: %w", f.Name, err)
		}
		if err := parsed.Validate(); err != nil {
			return nil, fmt.Errorf("consumers: %w", err)
		}
		out = append(out, parsed)
	}
	return out, nil
}

func (f fileConsumer) parse() (c consumer.Consumer, err error) {
	c = consumer.Consumer{
		Name: f.Name, Dir: f.Dir, Files: f.Files, Links: f.Links,
		Owner: f.Owner, Group: f.Group, PKCS12Password: f.PKCS12Password,
	}
	if c.Mode, err = parseMode(f.Mode); err != nil {
		return c, fmt.Errorf("mode: %w", err)
	}
	if c.KeyMode, err = parseMode(f.KeyMode); err != nil {
		return c, fmt.Errorf("key_mode: %w", err)
	}
	if c.Hook, err = splitCommand(f.Hook); err != nil {
		return c, fmt.Errorf("hook: %w", err)
	}
	return c, nil
}

// parseMode parses permissions in octal; "" is 0.
func parseMode(s string) (fs.FileMode, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 8, 9)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%.10q is not of the form 0640", s)
	}
	return fs.FileMode(n), nil
}

// join has the agent publish its active pair to the consumers.
func (a *app) join(c config, log *slog.Logger, to *agent.Config) error {
	consumers, err := c.consumers()
	if err != nil {
		return err
	}
	set := consumer.Config{Consumers: consumers, Timeout: c.HookTimeout, Log: log}
	for _, name := range []string{"PATH", "HOME", "LANG", "TZ"} {
		if value := a.Getenv(name); value != "" {
			set.Env = append(set.Env, name+"="+value)
		}
	}
	s, err := consumer.New(set)
	if err != nil {
		return err
	}
	to.Reload = func(ctx context.Context, active agent.Paths) error { return s.Publish(ctx, consumer.Paths(active)) }
	to.Stale = func(active agent.Paths) bool { return s.Stale(consumer.Paths(active)) }
	to.Withdraw = s.Withdraw
	return nil
}
