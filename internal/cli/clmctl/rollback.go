package clmctl

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
)

func (a *app) deviceRollbackCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "rollback NAME",
		Short: "Have a device restore its previous certificate",
		Long: `rollback asks a device to use the key and certificate again that were active
before the present ones, and records what it then has. The device runs its
reload hook; the pair that it gives up stays staged there until the next
enrolment. A device keeps one previous pair, so it cannot go back twice.

The device is asked first what it has: one that has gone back by itself, or by
somebody's hand, is not sent back further.

The next renew goes on as usual: if the previous certificate is due by then, it
is replaced by a new one.

Exit codes: 0 done (also: it had gone back already), 1 not confirmed by you, 2
usage, or a device that is not known, 3 the device cannot be reached, or has
nothing to go back to, 4 another process works on it.`,
		Example: "  clmctl device rollback plc-0001.bilbao\n  clmctl device rollback plc-0001.bilbao --yes -o json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := (selection{names: args}).filter(); err != nil {
				return err
			}
			s, err := a.openExisting(cmd)
			if err != nil {
				return err
			}
			return a.runRollback(cmd.Context(), s, args[0])
		},
	}
}

// rollbackView is what came of it, as scripts see it.
type rollbackView struct {
	Device  deviceView `json:"device"`
	Already bool       `json:"already"` // it had gone back before it was asked
	From    fromView   `json:"from"`    // what is not active any more
}

type fromView struct {
	Serial   string `json:"serial"`
	NotAfter string `json:"not_after"`
	SHA256   string `json:"sha256"`
}

func (a *app) runRollback(ctx context.Context, s *site, name string) (err error) {
	_, log := a.progress()
	w, err := a.contact(ctx, s, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	d, err := w.inventory.Device(ctx, name)
	if err != nil {
		return explainUnknown(err)
	}
	ok, err := a.Confirm(a.Streams, fmt.Sprintf("Have %s at %s restore its previous certificate?", d.Name, d.Address))
	if err != nil {
		return err
	}
	if !ok {
		return errors.New("not confirmed; nothing was done")
	}
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	result, err := w.runner.Rollback(ctx, name)
	if err != nil {
		return explainRollback(err)
	}
	return a.renderRollback(result)
}

func explainRollback(err error) error {
	var refusal *enrol.DeviceError
	switch {
	case errors.Is(err, enrol.ErrLeased):
		return clikit.WithHint(clikit.WithCode(err, clikit.ExitLocked), "wait until it is done")
	case errors.Is(err, enrol.ErrNothingActive):
		return clikit.WithHint(clikit.WithCode(err, clikit.ExitSomeFailed), "clmctl device history NAME shows what it had; clmctl enrol NAME obtains a certificate")
	case errors.As(err, &refusal) && refusal.Problem == enrol.ProblemConflict:
		return clikit.WithHint(clikit.WithCode(err, clikit.ExitSomeFailed), "a device keeps one previous pair; clmctl renew --force NAME obtains a new certificate")
	case errors.As(err, &refusal), errors.Is(err, enrol.ErrUnreachable), errors.Is(err, enrol.ErrIdentity):
		return clikit.WithHint(clikit.WithCode(err, clikit.ExitSomeFailed), "try again when it answers: it is asked what it has before anything is repeated")
	}
	return explainUnknown(err)
}

func (a *app) renderRollback(r enrol.Rollback) error {
	v := rollbackView{Device: viewDevice(r.Device, a.Now()), Already: r.Already, From: fromView{
		Serial: r.From.Serial, NotAfter: stamp(r.From.NotAfter), SHA256: hex.EncodeToString(r.From.SHA256[:]),
	}}
	var now certificateFacts
	if v.Device.Certificate != nil {
		now = *v.Device.Certificate
	}
	if r.Already {
		a.note("%s had gone back before it was asked", r.Device.Name)
	}
	if v.Device.Certificate == nil {
		a.warn("%s has no certificate on record now", r.Device.Name)
	} else if r.Device.State(a.Now()) != fleet.Operational {
		a.warn("the certificate that is active again ended at %s", now.NotAfter)
	}
	return clikit.RenderRecord(a.Out, a.Output, v,
		clikit.Field{Name: "name", Value: r.Device.Name},
		clikit.Field{Name: "active", Value: now.Serial}, clikit.Field{Name: "active_until", Value: now.NotAfter},
		clikit.Field{Name: "given_up", Value: v.From.Serial},
		clikit.Field{Name: "renew_at", Value: deref(v.Device.RenewAt)})
}
