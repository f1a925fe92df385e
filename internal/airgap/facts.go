package airgap

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Facts are what speaks against opening a secret on a machine.
type Facts struct {
	Interfaces []string `json:"interfaces"` // network interfaces that are up, without loopback
	Radios     []string `json:"radios"`     // transmitters that are not blocked: Wi-Fi, Bluetooth, mobile
	Swap       []string `json:"swap"`       // areas that memory may be swapped to, also to compressed memory
}

// Clean reports whether nothing speaks against it.
func (f Facts) Clean() bool { return len(f.Interfaces)+len(f.Radios)+len(f.Swap) == 0 }

// Reasons are the facts in words, one each.
func (f Facts) Reasons() []string {
	var out []string
	say := func(names []string, one, more string) {
		verb := one
		if len(names) > 1 {
			verb = more
		}
		if len(names) > 0 {
			out = append(out, fmt.Sprintf(verb, strings.Join(names, ", ")))
		}
	}
	say(f.Interfaces, "network interface %s is up", "network interfaces %s are up")
	say(f.Radios, "radio %s is on", "radios %s are on")
	say(f.Swap, "swap is on (%s)", "swap is on (%s)")
	return out
}

// Read reads the facts from a machine's /sys and /proc. What cannot be read is
// an error: a machine of which nothing is known is not cut off.
//
// It opens no socket, and it sees the machine's interfaces, not those of a
// network namespace that the process may have been put into.
func Read(sys, proc fs.FS) (Facts, error) {
	var f Facts
	var err error
	if f.Interfaces, err = upInterfaces(sys); err != nil {
		return f, fmt.Errorf("list network interfaces: %w", err)
	}
	if f.Radios, err = radios(sys); err != nil {
		return f, fmt.Errorf("list radios: %w", err)
	}
	if f.Swap, err = swapAreas(proc); err != nil {
		return f, fmt.Errorf("list swap areas: %w", err)
	}
	return f, nil
}

// upInterfaces reads class/net: a folder with flags for each interface.
func upInterfaces(sys fs.FS) ([]string, error) {
	entries, err := fs.ReadDir(sys, "class/net")
	if err != nil {
		return nil, err
	}
	var up []string
	for _, e := range entries {
		text, err := fs.ReadFile(sys, path.Join("class/net", e.Name(), "flags"))
		if info, statErr := fs.Stat(sys, path.Join("class/net", e.Name())); statErr == nil && !info.IsDir() {
			continue // bonding_masters
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // it has just been removed
		}
		if err != nil {
			return nil, err
		}
		flags, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 0, 32)
		if err != nil {
			return nil, fmt.Errorf("flags of %s: %w", e.Name(), err)
		}
		if flags&unix.IFF_UP != 0 && flags&unix.IFF_LOOPBACK == 0 {
			up = append(up, e.Name())
		}
	}
	return up, nil
}

// radios reads class/rfkill, which only a kernel with radios has: neither soft
// nor hard blocked means that it may transmit, whether an interface is up or not.
func radios(sys fs.FS) ([]string, error) {
	entries, err := fs.ReadDir(sys, "class/rfkill")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var on []string
	for _, e := range entries {
		value := func(name string) (string, error) {
			text, err := fs.ReadFile(sys, path.Join("class/rfkill", e.Name(), name))
			return string(bytes.TrimSpace(text)), err
		}
		soft, softErr := value("soft")
		hard, hardErr := value("hard")
		if errors.Is(softErr, fs.ErrNotExist) {
			continue // it has just been removed
		}
		if err := errors.Join(softErr, hardErr); err != nil {
			return nil, err
		}
		if soft != "0" || hard != "0" {
			continue
		}
		name, err := value("name")
		if err != nil {
			name = e.Name()
		}
		if kind, err := value("type"); err == nil {
			name += " (" + kind + ")"
		}
		on = append(on, name)
	}
	return on, nil
}

// swapAreas reads swaps: a heading, then an area per line, its name first.
func swapAreas(proc fs.FS) ([]string, error) {
	text, err := fs.ReadFile(proc, "swaps")
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := fs.Stat(proc, "meminfo"); err != nil {
			return nil, err
		}
		return nil, nil // a kernel without swapping
	}
	if err != nil {
		return nil, err
	}
	var areas []string
	for i, line := range strings.Split(string(text), "\n") {
		if fields := strings.Fields(line); i > 0 && len(fields) > 0 {
			areas = append(areas, fields[0])
		}
	}
	return areas, nil
}
