// Command devagent is the agent on a device: it makes and keeps the private
// key of the device's certificate and answers the CLM.
package main

import (
	"os"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/cli/devagent"
)

func main() { os.Exit(devagent.Main(os.Args[1:], clikit.OSStreams())) }
