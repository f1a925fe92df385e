package clmctl

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/conformance"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
)

type doctorOptions struct {
	device      string
	conformance bool
	slot        bool
	devices     bool // contact all of them
}

func (a *app) doctorCommand() *cobra.Command {
	var o doctorOptions
	cmd := &cobra.Command{
		Use:   "doctor [--device NAME [--conformance]]",
		Short: "Say what is wrong with this CLM, or with a device",
		Long: `doctor looks at this CLM: configuration, permissions, disk, keys, the inventory's
integrity, who else works on it, the CA and when its certificates end, the clock,
and how the devices are. It contacts five of them (--devices: all) by a handshake
and says what stands in between: nobody listening at the port, or a firewall. It
changes nothing, here or elsewhere. Each finding that needs one has a remedy.

With --device it says what is wrong with one device: who answers at its address,
what it says of its clock, certificates and trust anchors, and how that fits the
inventory.

--device NAME --conformance speaks to a device as a CLM does, and as one never should,
and says which rules of docs/protocol.md the device breaks. It is made for those
who build a device of their own.

Nothing that the device does for its plant changes: no certificate is staged on
a device that has trust anchors, none is activated, and requests name enrolments
that nobody began. What a device makes of a CSR request and a certificate is
tested only with --slot: it takes the device's pending slot, which another CLM
then gets after an hour without this one, or as the device restarts. Use it on a
device that serves nobody.

FAIL: the rule is broken. WARN: it works, but in another way than is asked for.
SKIP: it was not tried.

Exit codes: 0 all is well, or there are warnings; 1 something is wrong with this
CLM; 3 only with devices: one breaks a rule, or nobody answers.`,
		Example: "  clmctl doctor\n  clmctl doctor --devices -o json\n  clmctl doctor --device plc-0001.bilbao\n  clmctl doctor --device plc-0001.bilbao --conformance\n  clmctl doctor --device bench-1 --conformance --slot -o json",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.runDoctor(cmd, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.device, "device", "", "the device to look at")
	f.BoolVar(&o.devices, "devices", false, "contact every device, not only five")
	f.BoolVar(&o.conformance, "conformance", false, "test it against docs/protocol.md")
	f.BoolVar(&o.slot, "slot", false, "also test CSR requests and certificates; takes the device's pending slot")
	return cmd
}

func (a *app) runDoctor(cmd *cobra.Command, o doctorOptions) (err error) {
	switch {
	case o.device == "" && (o.conformance || o.slot):
		return clikit.WithHint(clikit.Usage("no device was named"), "give --device NAME")
	case o.device != "" && o.devices:
		return clikit.Usage("give --device NAME or --devices, not both")
	case o.slot && !o.conformance:
		return clikit.WithHint(clikit.Usage("--slot is of the conformance test"), "give --conformance")
	case o.device == "":
		return a.runCheckup(cmd, o)
	}
	if _, err := (selection{names: []string{o.device}}).filter(); err != nil {
		return err
	}
	if !o.conformance {
		return a.runDeviceCheckup(cmd, o.device)
	}
	s, err := a.openExisting(cmd)
	if err != nil {
		return err
	}
	devices, err := s.dir.inventory(cmd.Context(), true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, devices.Close()) }()
	device, release, err := claim(cmd.Context(), devices, o)
	if err != nil {
		return err
	}
	defer release()
	target, err := a.target(s, device)
	if err != nil {
		return err
	}
	target.Slot = o.slot
	r, err := examine(cmd.Context(), target)
	if err != nil {
		return err
	}
	if err := r.render(a); err != nil {
		return err
	}
	return r.err()
}

// claim keeps renewals off the device as long as it is tested. What needs the
// pending slot must not take it from an enrolment that is under way.
func claim(ctx context.Context, devices inventory, o doctorOptions) (fleet.Device, func(), error) {
	device, err := devices.Device(ctx, o.device)
	if err != nil {
		return device, nil, explainUnknown(err)
	}
	if device.Address == "" {
		return device, nil, clikit.WithHint(fmt.Errorf("%s has no address", device.Name), "clmctl commission --addresses FILE adds it")
	}
	release, err := devices.Lease(ctx, device.Name)
	if errors.Is(err, enrol.ErrLeased) {
		return device, nil, clikit.WithHint(err, "a renewal is working on the device: wait until it has ended")
	}
	if err != nil {
		return device, nil, err
	}
	if !o.slot {
		return device, release, nil
	}
	_, err = devices.OpenEnrolment(ctx, device.Name)
	if errors.Is(err, enrol.ErrNotFound) {
		return device, release, nil
	}
	release()
	if err == nil {
		err = clikit.WithHint(fmt.Errorf("an enrolment of %s is under way, which --slot would end", device.Name), "finish it with clmctl renew, or leave --slot out")
	}
	return device, nil, err
}

// target is the device as the conformance test takes it.
func (a *app) target(s *site, device fleet.Device) (conformance.Target, error) {
	var none conformance.Target
	identity, err := s.dir.identity()
	if err != nil {
		return none, err
	}
	defer identity.Destroy()
	dialer, err := a.dialer(s, identity)
	if err != nil {
		return none, err
	}
	certificate, err := handshakeCertificate(dialer.Credential)
	if err != nil {
		return none, err
	}
	target := conformance.Target{
		Address: device.Address, Identity: device.Identity, Params: dialer.Params,
		Certificate: certificate, Random: a.Random,
	}
	ca, err := s.dir.authority()
	switch {
	case err == nil:
		target.CA = ca.Anchor
	case !errors.Is(err, errNoCA):
		return none, err
	}
	return target, nil
}

func handshakeCertificate(c *coaplink.Credential) (tls.Certificate, error) {
	data, err := c.MarshalPEM()
	if err != nil {
		return tls.Certificate{}, err
	}
	defer clear(data)
	certificate, err := tls.X509KeyPair(data, data)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("DTLS credential: %w", err)
	}
	return certificate, nil
}

// diagnosis is what scripts see of a conformance test.
type diagnosis struct {
	Device   string    `json:"device"`
	Identity string    `json:"identity"`
	Address  string    `json:"address"`
	Passed   int       `json:"passed"`
	Warned   int       `json:"warned"`
	Failed   int       `json:"failed"`
	Skipped  int       `json:"skipped"`
	Rules    []finding `json:"rules"`
}

type finding struct {
	Rule    string              `json:"rule"`
	Section string              `json:"section"` // of docs/protocol.md
	Says    string              `json:"says"`
	Outcome conformance.Outcome `json:"outcome"`
	Detail  *string             `json:"detail"`
}

func examine(ctx context.Context, target conformance.Target) (*diagnosis, error) {
	d := &diagnosis{Device: target.Identity.Name, Identity: target.Identity.String(), Address: target.Address, Rules: []finding{}}
	err := conformance.Run(ctx, target, func(f conformance.Finding) {
		switch f.Outcome {
		case conformance.Pass:
			d.Passed++
		case conformance.Warn:
			d.Warned++
		case conformance.Fail:
			d.Failed++
		case conformance.Skip:
			d.Skipped++
		}
		d.Rules = append(d.Rules, finding{f.Rule, f.Section, f.Says, f.Outcome, optional(clikit.OneLine(f.Detail))})
	})
	if errors.Is(err, conformance.ErrSilent) {
		return nil, clikit.WithHint(clikit.WithCode(err, clikit.ExitSomeFailed), "check the device, its address and firewalls")
	}
	return d, err
}

func (d *diagnosis) render(a *app) error {
	t := clikit.Table{Columns: clikit.Columns("outcome", "rule", "section", "says", "detail")}
	for _, f := range d.Rules {
		t.Rows = append(t.Rows, []string{strings.ToUpper(string(f.Outcome)), f.Rule, f.Section, f.Says, deref(f.Detail)})
	}
	if err := clikit.Render(a.Out, a.Output, d, t); err != nil {
		return err
	}
	if a.Output != clikit.FormatTable && a.Output != clikit.FormatWide {
		return nil
	}
	_, err := fmt.Fprintf(a.Out, "passed=%d warned=%d failed=%d skipped=%d\n", d.Passed, d.Warned, d.Failed, d.Skipped)
	return err
}

func (d *diagnosis) err() error {
	if d.Failed == 0 {
		return nil
	}
	return clikit.WithHint(clikit.WithCode(fmt.Errorf("%s breaks %d of %d rules", d.Device, d.Failed, len(d.Rules)), clikit.ExitSomeFailed),
		"docs/protocol.md has each rule under its section")
}
