package consumer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Names in a consumer's directory.
const (
	currentName   = "current"
	versionPrefix = ".v-"   // of a complete version
	partPrefix    = ".new-" // of one that is being written
	dirMode       = 0o755   // what is secret has modes of its own
)

// ErrTaken is wrapped when a path that a consumer is to have is something that
// the agent has not made.
var ErrTaken = errors.New("something else is there: move it away")

// place gives a consumer the pair.
func (s *Set) place(c Consumer, p pair) error {
	if c.Dir == "" {
		return nil
	}
	v, err := c.version(p)
	if err != nil {
		return err
	}
	defer v.destroy()
	if err := s.ensureDir(c); err != nil {
		return err
	}
	if err := s.files.Sweep(c.Dir); err != nil {
		return err
	}
	current := filepath.Join(c.Dir, currentName)
	before, err := readlink(current)
	if err != nil {
		return err
	}
	now := versionPrefix + v.mark
	if err := s.ensureVersion(c, v); err != nil {
		return err
	}
	if before != now {
		if err := s.files.LinkDurable(now, current); err != nil {
			return err
		}
		if err := s.sweep(c.Dir, now, before); err != nil {
			s.cfg.Log.Warn("sweep versions", "consumer", c.Name, "error", err)
		}
	}
	return s.link(c, v.names)
}

// ensureVersion writes a version beside the one in use, unless it is there.
func (s *Set) ensureVersion(c Consumer, v version) error {
	path := filepath.Join(c.Dir, versionPrefix+v.mark)
	if v.isIn(path) {
		return nil
	}
	// Only somebody's hand leaves a part of one.
	if err := s.files.RemoveDir(path); err != nil {
		return err
	}
	uid, gid, err := c.ids()
	if err != nil {
		return err
	}
	part := filepath.Join(c.Dir, partPrefix+v.mark)
	if err := s.files.RemoveDir(part); err != nil {
		return err
	}
	if err := s.makeDir(part); err != nil {
		return err
	}
	for _, name := range v.names {
		data, err := v.content(name)
		if err == nil {
			err = s.write(filepath.Join(part, name), data, uid, gid, c.mode(name))
			clear(data)
		}
		if err != nil {
			return errors.Join(err, s.files.RemoveDir(part))
		}
	}
	if err := s.cfg.Layer.SyncDir(part); err != nil {
		return fmt.Errorf("sync directory %s: %w", part, err)
	}
	if err := s.cfg.Layer.Rename(part, path, false); err != nil {
		return fmt.Errorf("complete %s: %w", path, err)
	}
	// Before the link: a file system may make the entries of a directory durable
	// in another order than they were made in.
	if err := s.cfg.Layer.SyncDir(c.Dir); err != nil {
		return fmt.Errorf("sync directory %s: %w", c.Dir, err)
	}
	return nil
}

// isIn reports whether a directory has all files of the version.
func (v version) isIn(path string) bool {
	return !slices.ContainsFunc(v.names, func(name string) bool {
		_, err := os.Lstat(filepath.Join(path, name))
		return err != nil
	})
}

// write makes a file that is its owner's before it has any content.
func (s *Set) write(path string, data []byte, uid, gid int, mode fs.FileMode) error {
	f, err := s.cfg.Layer.Create(path, 0o600)
	if err != nil {
		return err
	}
	err = s.cfg.Layer.Own(path, uid, gid, mode)
	if err == nil {
		_, err = f.Write(data)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func (s *Set) makeDir(path string) error {
	if err := s.cfg.Layer.Mkdir(path, dirMode); err != nil {
		return err
	}
	return s.cfg.Layer.Own(path, -1, -1, dirMode) // whatever the umask says
}

// ensureDir makes the directory of a consumer, whose parent is there.
func (s *Set) ensureDir(c Consumer) error {
	dir := c.Dir
	_, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := s.makeDir(dir); err != nil {
			return err
		}
		if err := s.cfg.Layer.SyncDir(filepath.Dir(dir)); err != nil {
			return fmt.Errorf("sync directory %s: %w", filepath.Dir(dir), err)
		}
	} else if err != nil {
		return err
	}
	// Root gives files away in it, and so may others where a group is named.
	if os.Geteuid() == 0 || c.Owner+c.Group != "" {
		return trusted(dir, os.Geteuid())
	}
	return nil
}

// trusted checks that none but root and one user may change what a path leads
// to.
func trusted(dir string, user int) error {
	path, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	for at := path; ; at = filepath.Dir(at) {
		info, err := os.Lstat(at)
		if err != nil {
			return err
		}
		owner, ok := info.Sys().(*syscall.Stat_t)
		open := info.Mode().Perm()&0o022 != 0 && (at == path || info.Mode()&fs.ModeSticky == 0)
		if !ok || owner.Uid != 0 && int64(owner.Uid) != int64(user) || open {
			return fmt.Errorf("%s can be changed by others than root and the agent, who could have files given away (chown root, chmod go-w)", at)
		}
		if at == "/" {
			return nil
		}
	}
}

// link makes the stable paths lead into the version in use. Once made, they
// stay.
func (s *Set) link(c Consumer, names []string) error {
	for _, name := range append(knownFiles(), PKCS12File) {
		path, target := filepath.Join(c.Dir, name), filepath.Join(currentName, name)
		if slices.Contains(names, name) {
			if err := s.ensureLink(path, target, name); err != nil {
				return err
			}
		} else if present, err := readlink(path); err == nil && present == target {
			if err := s.files.RemoveDurable(path); err != nil {
				return err
			}
		}
	}
	for name, path := range c.Links {
		if err := s.ensureLink(path, filepath.Join(c.Dir, currentName, name), name); err != nil {
			return err
		}
	}
	return nil
}

// ensureLink makes a link, in the place of none or of one to another
// consumer's directory.
func (s *Set) ensureLink(path, target, name string) error {
	present, err := readlink(path)
	switch {
	case err != nil:
		return err
	case present == target:
		return nil
	case present != "" && !strings.HasSuffix(present, "/"+currentName+"/"+name):
		return fmt.Errorf("%s: %w", path, ErrTaken)
	}
	return s.files.LinkDurable(target, path)
}

// readlink returns where a link leads, "" if there is nothing. Errors wrap
// ErrTaken if it is no link.
func readlink(path string) (string, error) {
	target, err := os.Readlink(path)
	switch {
	case err == nil:
		return target, nil
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case errors.Is(err, syscall.EINVAL):
		return "", fmt.Errorf("%s: %w", path, ErrTaken)
	}
	return "", err
}

// isPlaced reports whether a consumer has the pair.
func (s *Set) isPlaced(c Consumer, p pair) bool {
	if c.Dir == "" {
		return true
	}
	v, err := c.version(p)
	if err != nil {
		return false
	}
	defer v.destroy()
	if now, err := readlink(filepath.Join(c.Dir, currentName)); err != nil || now != versionPrefix+v.mark {
		return false
	}
	for _, name := range v.names {
		if _, err := os.Stat(filepath.Join(c.Dir, name)); err != nil {
			return false
		}
	}
	for name, path := range c.Links {
		if target, err := readlink(path); err != nil || target != filepath.Join(c.Dir, currentName, name) {
			return false
		}
	}
	return true
}

// sweep removes the versions that are not to be kept.
func (s *Set) sweep(dir string, keep ...string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if !isVersion(name) || slices.Contains(keep, name) {
			continue
		}
		if err := s.files.RemoveDir(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// isVersion reports whether a name is that of a version, complete or not.
func isVersion(name string) bool {
	return strings.HasPrefix(name, versionPrefix) || strings.HasPrefix(name, partPrefix)
}

// clear takes every version away, and wipes it.
func (s *Set) clear(c Consumer) error {
	if c.Dir == "" {
		return nil
	}
	if _, err := os.Stat(c.Dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	current := filepath.Join(c.Dir, currentName)
	if _, err := readlink(current); err != nil {
		return err
	}
	if err := s.files.RemoveDurable(current); err != nil {
		return err
	}
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() && isVersion(e.Name()) {
			err = errors.Join(err, s.files.WipeDir(filepath.Join(c.Dir, e.Name())))
		}
	}
	return errors.Join(err, s.sweep(c.Dir))
}
