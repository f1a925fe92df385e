package pkgoffline

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/edgeclm/edgeclm/internal/airgap"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// errNotAirGapped is why the master secret is not opened.
var errNotAirGapped = errors.New("this machine is not air-gapped")

// AirGap is what the program is cut off by; airgap.Machine is the real one.
type AirGap interface {
	// Facts says what speaks against opening a secret on the machine.
	Facts() (airgap.Facts, error)
	// Isolate cuts the process off from networks, for good.
	Isolate() (airgap.Isolation, error)
}

// gate is that a process has passed the air gap: only then are secrets read.
type gate struct {
	connected bool // the machine is not air-gapped, which was accepted
	locked    bool // memory is locked
}

// findings are what the gate found and did, for a transcript; what it warned of
// is not among them, and there are none before it was passed.
func (g *gate) findings() []string {
	if g == nil {
		return nil
	}
	var out []string
	if !g.connected {
		out = append(out, "no network interface is up, no radio is on, swap is off")
	}
	out = append(out, "the process has denied itself sockets and other programs")
	if g.locked {
		out = append(out, "its memory is locked")
	}
	return out
}

// checkAirGap is what every command passes before it reads what opens a secret
// of the PKG. It refuses a machine that is not air-gapped, unless that is waived;
// then it warns. Either way the process is cut off from networks for the rest of
// its life. It reports whether the machine is connected, for the ledger.
func (a *app) checkAirGap(waived bool) (connected bool, err error) {
	facts, err := a.AirGap.Facts()
	reasons := facts.Reasons()
	if err != nil {
		reasons = append(reasons, "it cannot be looked at: "+err.Error())
	}
	switch why := strings.Join(reasons, "; "); {
	case len(reasons) == 0:
	case waived:
		a.warn("NOT FOR PRODUCTION: this machine is not air-gapped (" + why + "); whoever controls it can take the master secret and be every device")
	case err != nil:
		return true, fmt.Errorf("%w: %s", errNotAirGapped, why)
	default:
		return true, clikit.WithHint(fmt.Errorf("%w: %s", errNotAirGapped, why), remedy(facts)+", or accept it in a lab with --lab")
	}
	connected = len(reasons) > 0
	if err := a.isolate(); err != nil {
		return connected, err
	}
	a.gate.connected = connected
	return connected, nil
}

// isolate is the gate before what is not a secret of the PKG: the machine may be
// any, the process is cut off.
func (a *app) isolate() error {
	done, err := a.AirGap.Isolate()
	if errors.Is(err, airgap.ErrInherited) {
		return clikit.WithHint(err, "run it from a terminal of this machine")
	}
	if err != nil {
		return clikit.WithHint(err, "run it on a Linux kernel with seccomp, not in an emulator or in a container that forbids it; --lab does not waive this")
	}
	if done.NotLocked != nil {
		a.warn(done.NotLocked.Error() + "; secrets could be written to a swap area that is turned on during the run: run as root, or raise the limit (ulimit -l unlimited, as root)")
	}
	a.gate = &gate{locked: done.NotLocked == nil}
	return nil
}

// remedy says how what speaks against a machine is taken away.
func remedy(f airgap.Facts) string {
	var steps []string
	if len(f.Interfaces) > 0 {
		steps = append(steps, "take the network down (ip link set dev "+f.Interfaces[0]+" down)")
	}
	if len(f.Radios) > 0 {
		steps = append(steps, "turn radios off (rfkill block all)")
	}
	if len(f.Swap) > 0 {
		steps = append(steps, "turn swap off (swapoff -a)")
	}
	return strings.Join(steps, ", ")
}

// errGate is that a command forgot checkAirGap.
var errGate = errors.New("the air gap was not checked before a secret is read: this is a mistake in the program")

// readSecret reads what opens a secret, behind the gate. The caller zeroes it
// after use.
func (a *app) readSecret(ctx context.Context, from clikit.Secret) ([]byte, error) {
	if a.gate == nil {
		return nil, errGate
	}
	return clikit.ReadSecret(ctx, a.Streams, from)
}

// readNewPassphrase reads, generates or asks for what a secret will be sealed
// to, behind the gate. The caller zeroes it after use.
func (a *app) readNewPassphrase(ctx context.Context, from clikit.NewPassphrase) ([]byte, error) {
	if a.gate == nil {
		return nil, errGate
	}
	return clikit.ReadNewPassphrase(ctx, a.Streams, from)
}

// readKey reads the file of an age key, behind the gate. The caller zeroes it
// after use.
func (a *app) readKey(path string) ([]byte, error) {
	if a.gate == nil {
		return nil, errGate
	}
	return keyfile.ReadSecret(path, maxRecipientFile)
}
