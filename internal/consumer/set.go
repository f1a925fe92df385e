package consumer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// Paths are where a pair is found.
type Paths struct {
	Dir         string // holds the others
	Key         string // PEM; the file may be absent
	Certificate string // PEM
	Chain       string // PEM: the certificate and those of its issuers, without the anchor
	CA          string // PEM: the trust anchor of the enrolment
	Restored    bool   // the pair is the previous one, which is back
}

// Config is what a Set is made of.
type Config struct {
	Consumers []Consumer    // served in this order
	Layer     Layer         // nil: OS{}
	Env       []string      // of hooks, "key=value"
	Timeout   time.Duration // of each hook; 0: DefaultHookTimeout
	Log       *slog.Logger
}

// Set is all consumers of a device. It is not safe for concurrent use.
type Set struct {
	cfg   Config
	files keyfile.Files
}

// New returns a set. Errors wrap ErrInvalid.
func New(cfg Config) (*Set, error) {
	if len(cfg.Consumers) > MaxConsumers {
		return nil, fmt.Errorf("%w: %d are more than %d", ErrInvalid, len(cfg.Consumers), MaxConsumers)
	}
	var taken []string // names, directories, links
	for _, c := range cfg.Consumers {
		if c.Name == "" && c.Dir == "" {
			continue
		}
		if err := c.Validate(); err != nil {
			return nil, err
		}
		mine := []string{c.Name}
		if c.Dir != "" {
			mine = append(mine, c.Dir)
		}
		for _, path := range c.Links {
			mine = append(mine, path)
		}
		for _, name := range mine {
			if slices.Contains(taken, name) {
				return nil, fmt.Errorf("%w %q: %s is another consumer's already", ErrInvalid, c.Name, name)
			}
		}
		taken = append(taken, mine...)
	}
	if cfg.Layer == nil {
		cfg.Layer = OS{}
	}
	return &Set{cfg: cfg, files: keyfile.On(cfg.Layer)}, nil
}

// Publish makes the active pair appear at all consumers, and then runs their
// hooks. The first failure ends it, unless the previous pair is back, which as
// many as possible are to have. It may be repeated.
func (s *Set) Publish(ctx context.Context, active Paths) error {
	var failures []error
	each := func(do func(Consumer) error) bool {
		for _, c := range s.cfg.Consumers {
			err := do(c)
			if err == nil {
				continue
			}
			if c.Name != "" {
				err = fmt.Errorf("consumer %s: %w", c.Name, err)
			}
			failures = append(failures, err)
			if !active.Restored {
				return false
			}
		}
		return true
	}
	p, err := readPair(active)
	if err != nil {
		return err
	}
	defer p.destroy()
	if each(func(c Consumer) error { return s.place(c, p) }) {
		each(func(c Consumer) error { return s.notify(ctx, c, active) })
	}
	return errors.Join(failures...)
}

// Stale reports whether a consumer lacks the active pair, or has it in another
// form than it should.
func (s *Set) Stale(active Paths) bool {
	p, err := readPair(active)
	if err != nil {
		return true
	}
	defer p.destroy()
	return slices.ContainsFunc(s.cfg.Consumers, func(c Consumer) bool { return !s.isPlaced(c, p) })
}

// Withdraw takes every pair away from all consumers: the device has none. No
// hook is run, since there is nothing to load.
func (s *Set) Withdraw() error {
	var failures []error
	for _, c := range s.cfg.Consumers {
		if err := s.clear(c); err != nil {
			failures = append(failures, fmt.Errorf("consumer %s: %w", c.Name, err))
		}
	}
	return errors.Join(failures...)
}

// notify runs the hook of a consumer.
func (s *Set) notify(ctx context.Context, c Consumer, active Paths) error {
	if len(c.Hook) == 0 {
		return nil
	}
	at := active
	if c.Dir != "" {
		at = c.paths(active.Restored)
	}
	log := s.cfg.Log
	if c.Name != "" {
		log = log.With("consumer", c.Name)
	}
	h := Hook{Argv: c.Hook, Env: append(slices.Clone(s.cfg.Env), "EDGECLM_CONSUMER="+c.Name), Timeout: s.cfg.Timeout, Log: log}
	if err := h.Run(ctx, at); err != nil {
		return fmt.Errorf("the reload hook failed: %w", err)
	}
	return nil
}

// paths returns what the hook of a consumer is told; files that it does not
// get are "".
func (c Consumer) paths(restored bool) Paths {
	at := func(name string) string {
		if !slices.Contains(c.names(), name) {
			return ""
		}
		return c.Dir + "/" + name
	}
	return Paths{Dir: c.Dir, Key: at(KeyFile), Certificate: at(CertFile), Chain: at(ChainFile), CA: at(CAFile), Restored: restored}
}
