package agent

import "github.com/edgeclm/edgeclm/internal/keyfile"

// Layer is what the agent needs of a file system.
type Layer = keyfile.Layer

// OS is the Layer of the operating system.
type OS = keyfile.OS
