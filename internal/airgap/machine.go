package airgap

import "os"

// Machine is the machine that the process runs on.
type Machine struct{}

// Facts reads the facts about this machine.
func (Machine) Facts() (Facts, error) { return Read(os.DirFS("/sys"), os.DirFS("/proc")) }

// Isolate cuts this process off.
func (Machine) Isolate() (Isolation, error) { return Isolate() }
