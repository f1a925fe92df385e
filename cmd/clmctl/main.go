// Command clmctl is the Certificate Lifecycle Management (CLM) side: it
// commissions devices, and enrols and renews their certificates.
package main

import (
	"os"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/cli/clmctl"
)

func main() { os.Exit(clmctl.Main(os.Args[1:], clikit.OSStreams())) }
