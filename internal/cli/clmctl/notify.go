package clmctl

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/alert"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/notify"
)

// notifyDir is the directory of what is to be told, and was.
const notifyDir = "notify"

func (a *app) notifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "notify",
		Short: "Try the notifications, and see what could not be delivered",
		Long: `Whoever renews (renew, run, watch) tells what somebody should know of the fleet
by a program, a webhook or e-mail: notify in the configuration, and
docs/notifications.md.`,
		Example: "  clmctl notify test\n  clmctl notify dead",
	}
	cmd.AddCommand(a.notifyTestCommand(), a.notifyDeadCommand(), a.notifyRetryCommand())
	return cmd
}

// notifier returns who tells.
func (a *app) notifier(s *site, log *slog.Logger) (*notify.Notifier, error) {
	c := s.Notify
	var config notify.Config
	if x := c.Exec; x != nil {
		config.Exec = &notify.ExecConfig{Command: x.Command, Timeout: x.Timeout}
	}
	if x := c.Webhook; x != nil {
		config.Webhook = &notify.WebhookConfig{URL: x.URL, SecretFile: x.SecretFile, CAFile: x.CAFile, Timeout: x.Timeout}
	}
	if x := c.SMTP; x != nil {
		config.SMTP = &notify.SMTPConfig{
			Server: x.Server, TLS: x.TLS, From: x.From, To: x.To, Username: x.Username, PasswordFile: x.PasswordFile, CAFile: x.CAFile,
		}
	}
	channels, err := notify.New(config, a.Now)
	if err != nil {
		return nil, clikit.WithHint(clikit.WithCode(err, clikit.ExitUsage), "docs/notifications.md describes the section notify of the configuration")
	}
	name := ""
	if len(channels) > 0 {
		identity, err := s.dir.identity()
		if err != nil {
			return nil, err
		}
		name = identity.Identity.Name
		identity.Destroy()
	}
	return &notify.Notifier{
		Dir: s.dir.path(notifyDir), CLM: name, Channels: channels,
		Thresholds: alert.Thresholds{
			NoSuccessWithin: s.Alerts.NoSuccessWithin, NeverReached: s.Alerts.NeverReached, Runway: s.Alerts.Runway, CAExpiry: s.Alerts.CAExpiry,
		},
		Policy: alert.Policy{MinInterval: c.MinInterval, Remind: c.Remind},
		Now:    a.Now, Jitter: rand.Float64, Log: log,
	}, nil
}

func (a *app) notifyTestCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "test [CHANNEL]",
		Short: "Send a test message through each channel, or one of them",
		Long: `test sends a message that says that it is a test through every channel that is
configured (exec, webhook, smtp; an e-mail for each address), or the one that is
named, at once and without another try, and says what came of it.`,
		Example:   "  clmctl notify test\n  clmctl notify test webhook",
		Args:      cobra.MaximumNArgs(1),
		ValidArgs: []string{"exec", "webhook", "smtp"},
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.openExisting(cmd)
			if err != nil {
				return err
			}
			n, err := a.notifier(s, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			if len(n.Channels) == 0 {
				return clikit.WithHint(clikit.Usage("nobody is configured to be told"), "docs/notifications.md describes the section notify of the configuration")
			}
			channel := ""
			if len(args) == 1 {
				channel = args[0]
			}
			results, err := n.Test(cmd.Context(), channel)
			if err != nil {
				return clikit.WithCode(err, clikit.ExitUsage)
			}
			return a.renderTest(results)
		},
	}
}

// channelView is what came of a test message.
type channelView struct {
	Channel string  `json:"channel"`
	OK      bool    `json:"ok"`
	Error   *string `json:"error"`
}

func (a *app) renderTest(results []notify.Result) error {
	views := []channelView{}
	t := clikit.Table{Columns: clikit.Columns("channel", "outcome", "error")}
	failed := 0
	for _, r := range results {
		v, word := channelView{Channel: r.Channel, OK: r.Err == nil}, "sent"
		if r.Err != nil {
			v.Error, word = optional(clikit.OneLine(r.Err.Error())), "failed"
			failed++
		}
		views = append(views, v)
		t.Rows = append(t.Rows, []string{r.Channel, word, deref(v.Error)})
	}
	if err := clikit.Render(a.Out, a.Output, views, t); err != nil {
		return err
	}
	if failed > 0 {
		return clikit.WithHint(fmt.Errorf("%d of %d channels failed", failed, len(results)), "correct the section notify of the configuration, or what it names")
	}
	return nil
}

// deadView is a message that was given up.
type deadView struct {
	ID      string            `json:"id"`
	At      string            `json:"at"`
	Subject string            `json:"subject"`
	Errors  map[string]string `json:"errors"` // by channel
}

func (a *app) notifyDeadCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "dead",
		Short:   "List the messages that were given up",
		Long:    "dead lists the messages that a channel refused, or did not take for days. retry sends one of them again.",
		Example: "  clmctl notify dead\n  clmctl notify dead -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := a.openNotifier(cmd)
			if err != nil {
				return err
			}
			letters, err := n.DeadLetters()
			if err != nil {
				return err
			}
			views := []deadView{}
			t := clikit.Table{Columns: clikit.Columns("id", "at", "subject", "error")}
			for _, l := range letters {
				views = append(views, deadView{l.ID, stamp(l.At), l.Subject, l.Errors})
				var why []string
				for _, channel := range slices.Sorted(maps.Keys(l.Errors)) {
					why = append(why, channel+": "+l.Errors[channel])
				}
				t.Rows = append(t.Rows, []string{l.ID, stamp(l.At), clikit.OneLine(l.Subject), clikit.OneLine(strings.Join(why, "; "))})
			}
			return clikit.Render(a.Out, a.Output, views, t)
		},
	}
}

func (a *app) notifyRetryCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "retry ID...",
		Short:   "Send messages again that were given up",
		Long:    "retry puts messages that were given up back among those that wait, for the channels that have not got them, and tries them at once.",
		Example: "  clmctl notify retry msg_5f0c1d8e2a7b4c6d9e3f0a1b2c3d4e5f",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := a.openNotifier(cmd)
			if err != nil {
				return err
			}
			var failures []error
			for _, id := range args {
				failures = append(failures, n.Retry(id))
			}
			err = errors.Join(failures...)
			switch {
			case errors.Is(err, notify.ErrNoChannel):
				return clikit.WithHint(clikit.WithCode(err, clikit.ExitUsage), "docs/notifications.md describes the section notify of the configuration")
			case errors.Is(err, keyfile.ErrLocked):
				return clikit.WithHint(err, "a renewing run is telling somebody just now: try again in a minute")
			case err != nil:
				return clikit.WithHint(err, "clmctl notify dead lists what was given up")
			}
			return n.Deliver(cmd.Context())
		},
	}
}

func (a *app) openNotifier(cmd *cobra.Command) (*notify.Notifier, error) {
	s, err := a.openExisting(cmd)
	if err != nil {
		return nil, err
	}
	return a.notifier(s, a.Logger(a.Err))
}
