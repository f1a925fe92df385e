package clmctl

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/edgeclm/edgeclm/internal/store/oslock"
)

// checkRuns says who works on this data directory now. It takes no lock, which
// another run could meet: the kernel lists them (proc_locks(5)).
func (c *checkup) checkRuns(context.Context) {
	const check = "runs"
	held, err := locksOf(c.site.dir.path(renewLock))
	if err != nil {
		c.skip(check, "the kernel does not say who holds locks: %v", err)
		return
	}
	leases, err := locksOf(c.site.dir.path(leaseFile))
	if err != nil {
		c.skip(check, "the kernel does not say who holds locks: %v", err)
		return
	}
	text := "no renewing run now"
	if held > 0 {
		text = "a renewing run is under way"
		if note := oslock.ReadNote(c.site.dir.path(renewLock)); note.PID > 0 {
			text = fmt.Sprintf("process %d renews since %s, for %s", note.PID, stamp(note.Since), about(note.Age(c.Now())))
		}
	}
	if leases > 0 {
		text += fmt.Sprintf("; %s worked on", devicesAre(leases))
	}
	c.ok(check, "%s", text)
}

// locksOf counts the locks that processes of this machine hold on a file.
func locksOf(path string) (int, error) {
	info, err := os.Stat(path)
	if os.IsNotExist(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, fmt.Errorf("%s has no inode", path)
	}
	id := fmt.Sprintf("%02x:%02x:%d", unix.Major(stat.Dev), unix.Minor(stat.Dev), stat.Ino)
	file, err := os.Open("/proc/locks")
	if err != nil {
		return 0, err
	}
	defer func() { _ = file.Close() }()
	n := 0
	for lines := bufio.NewScanner(file); lines.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 4711 fd:01:1234 0 EOF
		fields := strings.Fields(lines.Text())
		if len(fields) > 5 && fields[1] != "->" && fields[5] == id {
			n++
		}
	}
	return n, nil
}
