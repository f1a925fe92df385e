package labpeer

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Listeners returns the IPv4 loopback TCP ports that a process listens on, as
// the kernel tells them (proc(5): /proc/pid/net/tcp). A program that can only
// be told a port, and not asked which one it got, can so be given port 0, which
// no other process can take in between.
func Listeners(pid int) ([]netip.AddrPort, error) {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	sockets, err := socketInodes(filepath.Join(proc, "fd"))
	if err != nil {
		return nil, fmt.Errorf("list sockets of process %d: %w", pid, err)
	}
	table, err := os.ReadFile(filepath.Join(proc, "net", "tcp"))
	if err != nil {
		return nil, fmt.Errorf("list listeners of process %d: %w", pid, err)
	}
	return parseListeners(string(table), sockets), nil
}

// socketInodes returns the inodes of the sockets among a process's open files.
func socketInodes(dir string) (map[string]bool, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	inodes := make(map[string]bool)
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join(dir, entry.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // closed since the folder was read
		}
		if err != nil {
			return nil, err
		}
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			inodes[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return inodes, nil
}

// parseListeners picks the lines of a /proc/net/tcp table in state LISTEN (0A)
// on 127.0.0.1 whose inode is among the sockets.
func parseListeners(table string, sockets map[string]bool) []netip.AddrPort {
	const (
		local, state, inode = 1, 3, 9 // columns
		loopback            = "0100007F"
	)
	var found []netip.AddrPort
	for line := range strings.Lines(table) {
		column := strings.Fields(line)
		if len(column) <= inode || column[state] != "0A" || !sockets[column[inode]] {
			continue
		}
		address, hexPort, _ := strings.Cut(column[local], ":")
		port, err := strconv.ParseUint(hexPort, 16, 16)
		if address != loopback || err != nil {
			continue
		}
		found = append(found, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port)))
	}
	return found
}
