// Command pkg-offline is the Private Key Generator (PKG) of an installation. It
// runs on a machine that is connected to nothing.
package main

import (
	"os"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/cli/pkgoffline"
)

func main() { os.Exit(pkgoffline.Main(os.Args[1:], clikit.OSStreams())) }
