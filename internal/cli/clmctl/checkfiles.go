package clmctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Free space below which renewals are at risk: a renewal takes some kB, its log
// up to 16 MiB.
const (
	lowSpace  = 64 << 20  // bytes
	poorSpace = 512 << 20 // bytes
	lowInodes = 1000
)

// checkConfiguration looks at what the configuration names.
func (c *checkup) checkConfiguration(ctx context.Context) {
	if c.sources == nil { // it could not be read
		return
	}
	before := len(c.found)
	c.sources.effective().each(nil, func(path keyPath, value any) {
		text, _ := value.(string)
		switch name := path[len(path)-1]; {
		case strings.HasSuffix(name, "_file") && text != "":
			c.checkNamedFile(path.String(), text, name != "ca_file")
		case path.String() == keyMetricsTextfile && text != "":
			c.checkNamedDir(path.String(), filepath.Dir(text))
		case path.String() == keyMetricsListen && text != "":
			c.checkListener(ctx, path.String(), text)
		case name == "command":
			c.checkProgram(path.String(), value)
		}
	})
	if len(c.found) == before {
		c.ok(checkOfConfiguration, "it is read, and what it names is there")
	}
}

const checkOfConfiguration = "configuration"

// correct is the remedy for a wrong value.
func correct(key string) string {
	return "correct " + key + ": clmctl config show --origin says where it stands"
}

func (c *checkup) checkNamedFile(key, path string, secret bool) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		c.fail(checkOfConfiguration, correct(key), "%s: %v", key, err)
	case secret && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0:
		c.warn(checkOfConfiguration, "chmod 600 "+path, "%s: %s can be read by others", key, path)
	}
}

func (c *checkup) checkNamedDir(key, dir string) {
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		c.fail(checkOfConfiguration, "make the folder "+dir+" and let this user write to it, or "+correct(key), "%s: %s: %v", key, dir, err)
	}
}

// checkListener finds out whether somebody can listen there; who listens
// already may be the renewal loop of this CLM.
func (c *checkup) checkListener(ctx context.Context, key, address string) {
	if err := free(ctx, address); err != nil && !errors.Is(err, syscall.EADDRINUSE) {
		c.fail(checkOfConfiguration, correct(key), "%s: %v", key, err)
	}
}

func (c *checkup) checkProgram(key string, value any) {
	words, _ := value.([]any)
	if len(words) == 0 {
		return
	}
	if _, err := exec.LookPath(fmt.Sprint(words[0])); err != nil {
		c.fail(checkOfConfiguration, "make the program executable, or "+correct(key), "%s: %v", key, err)
	}
}

// free reports why nobody could listen at an address.
func free(ctx context.Context, address string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return l.Close()
}

// checkDirectory looks at owner and permissions of the data directory and of
// what is in it.
func (c *checkup) checkDirectory(context.Context) {
	const check = "permissions"
	dir := string(c.site.dir)
	before := len(c.found)
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			c.fail(check, "run clmctl as the owner of "+dir, "%v", err)
			return nil
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		c.checkMode(path, info)
		return nil
	})
	if err != nil {
		c.fail(check, "run clmctl as the owner of "+dir, "%v", err)
	}
	if err := unix.Access(dir, unix.W_OK); err != nil {
		c.fail(check, "mount it writable, or run clmctl as its owner", "%s cannot be written to: %v", dir, err)
	}
	if len(c.found) == before {
		c.ok(check, "%s and all in it belong to this user alone", dir)
	}
}

func (c *checkup) checkMode(path string, info fs.FileInfo) {
	const check = "permissions"
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
		c.warn(check, fmt.Sprintf("chown %d %s, or run clmctl as user %d", os.Geteuid(), path, stat.Uid), "%s belongs to user %d, and this is user %d", path, stat.Uid, os.Geteuid())
	}
	perm := info.Mode().Perm()
	switch {
	case info.IsDir() && perm&0o077 != 0:
		c.fail(check, "chmod 700 "+path, "others can look into %s (mode %04o)", path, perm)
	case info.Mode().IsRegular() && perm&0o022 != 0:
		c.fail(check, "chmod 600 "+path, "others can write to %s (mode %04o)", path, perm)
	case info.Mode().IsRegular() && perm&0o044 != 0 && !public(filepath.Base(path)):
		c.fail(check, "chmod 600 "+path+"; if others may have read it, see docs/stolen-clm-key.md", "others can read %s (mode %04o)", path, perm)
	}
}

// public reports whether a file of the data directory holds nothing that
// others must not know.
func public(name string) bool { return name == paramsFile || name == configFile }

// checkSpace looks at what is free where the inventory is.
func (c *checkup) checkSpace(context.Context) {
	const check = "disk"
	var st unix.Statfs_t
	if err := unix.Statfs(string(c.site.dir), &st); err != nil {
		c.fail(check, "check the file system", "%s: %v", c.site.dir, err)
		return
	}
	free := int64(st.Bavail) * int64(st.Bsize) //nolint:unconvert // Bsize has 32 bits on some machines
	remedy := "make space on the file system of " + string(c.site.dir)
	switch {
	case st.Flags&unix.ST_RDONLY != 0:
		c.fail(check, "mount it writable", "the file system of %s is read-only", c.site.dir)
	case free < lowSpace:
		c.fail(check, remedy, "%s free: no renewal can be recorded when it is full", bytesText(free))
	case st.Files > 0 && st.Ffree < lowInodes:
		c.fail(check, remedy+": there are too many files", "%d inodes free", st.Ffree)
	case free < poorSpace:
		c.warn(check, remedy, "%s free", bytesText(free))
	default:
		c.ok(check, "%s free", bytesText(free))
	}
}

// bytesText is a size as people say it.
func bytesText(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n), -1
	for value >= 1024 && unit < len(units)-1 {
		value /= 1024
		unit++
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", value), ".0") + " " + units[unit:unit+1] + "iB"
}
