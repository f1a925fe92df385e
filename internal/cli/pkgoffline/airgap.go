package pkgoffline

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
)

// errNotAirGapped is why the master secret is not opened.
var errNotAirGapped = errors.New("this machine is not air-gapped")

// upInterfaces names the interfaces that are up, without loopback.
func upInterfaces() ([]string, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	var up []string
	for _, i := range all {
		if i.Flags&net.FlagUp != 0 && i.Flags&net.FlagLoopback == 0 {
			up = append(up, i.Name)
		}
	}
	return up, nil
}

// checkAirGap refuses to go on while a network interface is up, unless that is
// waived; then it warns. It reports whether the machine is connected.
func (a *app) checkAirGap(waived bool) (connected bool, err error) {
	up, err := a.Interfaces()
	if err != nil && !waived {
		return true, err
	}
	if err == nil && len(up) == 0 {
		return false, nil
	}
	names := strings.Join(up, ", ")
	if waived {
		a.warn("NOT FOR PRODUCTION: this machine is not air-gapped (up: " + names + "); whoever controls it can take the master secret and be every device")
		return true, nil
	}
	return true, clikit.WithHint(
		fmt.Errorf("%w: network interface %s is up", errNotAirGapped, names),
		"take it down (ip link set dev "+up[0]+" down), or accept it in a lab with --lab")
}
