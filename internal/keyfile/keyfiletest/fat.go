package keyfiletest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf16"

	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// Rules of FAT and exFAT, as Linux shows them.
const (
	fatPerm      = 0o755 // of everything, whatever is asked for: the mount says
	fatMaxName   = 255   // UTF-16 units
	fatMaxFile   = 1<<32 - 1
	fatCluster   = 4096
	fatTime      = 2 * time.Second // what modification times are rounded down to
	fatForbidden = `"*/:<>?\|`
)

// ErrFATCase is of a name that differs in case only from one that is there: a
// program that makes both, or finds the one by the other, works on no stick.
var ErrFATCase = errors.New("the name is there in another case")

// FAT is a keyfile.Layer that has the rules of a FAT or exFAT stick below a
// directory, and leaves everything else to the layer that it is made of, which
// may be one that cuts the run. It is as strict as the strictest of the drivers
// (the kernel's, those of FUSE, Windows'):
//
//   - no permissions: files and directories are 0755 whatever was asked for;
//   - no symbolic links, and no rename that refuses to replace by itself;
//   - names without "*/:<>?\| and control characters, not ending in a dot or a
//     space, no names of devices (con, nul, com1), at most 255 characters, and
//     none that differ in case only;
//   - times of two seconds; files below 4 GiB.
//
// Programs read past the layer, so what it cannot show is that a name is found
// in another case: it refuses to make such names. It is safe for concurrent use.
type FAT struct {
	inner keyfile.Layer
	root  string
	o     FATOptions

	mu    sync.Mutex
	count int // operations on the stick
}

// FATOptions are what may be wrong with a stick.
type FATOptions struct {
	// NoDirSync: fsync of a directory does nothing, so that its entries are lost
	// with the power.
	NoDirSync bool
	// RemovesFirst: a rename removes what it replaces in a step of its own, as
	// exfat-fuse does; the power may fail in between.
	RemovesFirst bool
	// Capacity is how many bytes fit, in clusters of 4 KiB; 0: any number. What
	// was on the stick before counts.
	Capacity int64
	// FailAt is the operation on the stick, counted from 1, that fails once with
	// Fail; of a write, half was written. 0: none.
	FailAt int
	Fail   error
}

// NewFAT returns a layer that has a stick mounted at root.
func NewFAT(inner keyfile.Layer, root string, o FATOptions) *FAT {
	return &FAT{inner: inner, root: filepath.Clean(root), o: o}
}

// Failed reports whether the operation that was to fail has.
func (l *FAT) Failed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.o.FailAt > 0 && l.count >= l.o.FailAt
}

// below returns the part of a path below the mount point, "" of the mount point
// itself, and whether the path is on the stick.
func (l *FAT) below(path string) (string, bool) {
	rel, err := filepath.Rel(l.root, path)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", false
	}
	if rel == "." {
		rel = ""
	}
	return rel, true
}

// step begins an operation on paths, and reports whether they are on the stick.
func (l *FAT) step(op string, paths ...string) (bool, error) {
	on := 0
	for _, path := range paths {
		if _, is := l.below(path); is {
			on++
		}
	}
	switch on {
	case 0:
		return false, nil
	case len(paths):
	default:
		return true, &fs.PathError{Op: op, Path: paths[0], Err: syscall.EXDEV}
	}
	for _, path := range paths {
		if err := l.name(path); err != nil {
			return true, &fs.PathError{Op: op, Path: path, Err: err}
		}
	}
	if l.fails() {
		return true, &fs.PathError{Op: op, Path: paths[0], Err: l.o.Fail}
	}
	return true, nil
}

func (l *FAT) fails() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count++
	return l.count == l.o.FailAt
}

// name checks the names of a path on the stick.
func (l *FAT) name(path string) error {
	rel, _ := l.below(path)
	dir := l.root
	for part := range strings.SplitSeq(rel, "/") {
		if part == "" {
			continue
		}
		if err := fatName(part); err != nil {
			return err
		}
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			if e.Name() != part && strings.EqualFold(e.Name(), part) {
				return fmt.Errorf("%w: %s", ErrFATCase, e.Name())
			}
		}
		dir = filepath.Join(dir, part)
	}
	return nil
}

func fatName(name string) error {
	if len(utf16.Encode([]rune(name))) > fatMaxName {
		return syscall.ENAMETOOLONG
	}
	if strings.ContainsAny(name, fatForbidden) || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return syscall.EINVAL
	}
	if last := name[len(name)-1]; last == '.' || last == ' ' {
		return syscall.EINVAL
	}
	stem, _, _ := strings.Cut(strings.ToLower(name), ".")
	devices := []string{"con", "prn", "aux", "nul"}
	for i := '1'; i <= '9'; i++ {
		devices = append(devices, "com"+string(i), "lpt"+string(i))
	}
	if slices.Contains(devices, stem) {
		return syscall.EINVAL
	}
	return nil
}

// Create implements keyfile.Layer.
func (l *FAT) Create(path string, perm fs.FileMode) (keyfile.File, error) {
	on, err := l.step("open", path)
	if err != nil {
		return nil, err
	}
	if on {
		perm = fatPerm
	}
	f, err := l.inner.Create(path, perm)
	if err != nil || !on {
		return f, err
	}
	return &fatFile{File: f, stick: l, path: path}, os.Chmod(path, fatPerm)
}

// Append implements keyfile.Layer.
func (l *FAT) Append(path string) (keyfile.File, error) {
	return l.open(path, l.inner.Append, true)
}

// Overwrite implements keyfile.Layer.
func (l *FAT) Overwrite(path string) (keyfile.File, error) {
	return l.open(path, l.inner.Overwrite, false)
}

func (l *FAT) open(path string, open func(path string) (keyfile.File, error), atEnd bool) (keyfile.File, error) {
	on, err := l.step("open", path)
	if err != nil {
		return nil, err
	}
	f, err := open(path)
	if err != nil || !on {
		return f, err
	}
	at := int64(0)
	if info, err := os.Stat(path); err == nil && atEnd {
		at = info.Size()
	}
	return &fatFile{File: f, stick: l, path: path, at: at}, nil
}

// Rename implements keyfile.Layer.
func (l *FAT) Rename(from, to string, replace bool) error {
	on, err := l.step("rename", from, to)
	if err != nil {
		return err
	}
	if on && !replace {
		// renameat2 says EINVAL.
		return keyfile.LookAndRename(l.inner, from, to)
	}
	if _, err := os.Lstat(to); on && l.o.RemovesFirst && err == nil {
		if err := l.inner.Remove(to); err != nil {
			return err
		}
	}
	return l.inner.Rename(from, to, replace)
}

// Remove implements keyfile.Layer.
func (l *FAT) Remove(path string) error {
	if _, err := l.step("remove", path); err != nil {
		return err
	}
	return l.inner.Remove(path)
}

// Truncate implements keyfile.Layer.
func (l *FAT) Truncate(path string, size int64) error {
	if _, err := l.step("truncate", path); err != nil {
		return err
	}
	return l.inner.Truncate(path, size)
}

// Mkdir implements keyfile.Layer.
func (l *FAT) Mkdir(path string, perm fs.FileMode) error {
	if rel, on := l.below(path); !on || rel == "" {
		return l.inner.Mkdir(path, perm)
	}
	if _, err := l.step("mkdir", path); err != nil {
		return err
	}
	if err := l.inner.Mkdir(path, fatPerm); err != nil {
		return err
	}
	return os.Chmod(path, fatPerm)
}

// Symlink implements keyfile.Layer.
func (l *FAT) Symlink(target, path string) error {
	on, err := l.step("symlink", path)
	if err == nil && on {
		err = &os.LinkError{Op: "symlink", Old: target, New: path, Err: syscall.EPERM}
	}
	if err != nil {
		return err
	}
	return l.inner.Symlink(target, path)
}

// SyncDir implements keyfile.Layer.
func (l *FAT) SyncDir(path string) error {
	on, err := l.step("fsync", path)
	if err != nil || on && l.o.NoDirSync {
		return err
	}
	return l.inner.SyncDir(path)
}

// room returns how many of so many bytes fit behind what a file has.
func (l *FAT) room(size, more int64) (int64, error) {
	if size+more > fatMaxFile {
		return 0, syscall.EFBIG
	}
	if l.o.Capacity == 0 {
		return more, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	used := int64(0)
	err := filepath.WalkDir(l.root, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && !d.IsDir() {
			used += (info.Size() + fatCluster - 1) / fatCluster * fatCluster
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	slack := (fatCluster - size%fatCluster) % fatCluster
	if fits := max(l.o.Capacity-used, 0)/fatCluster*fatCluster + slack; fits < more {
		return fits, syscall.ENOSPC
	}
	return more, nil
}

// fatFile is a file on the stick.
type fatFile struct {
	keyfile.File
	stick *FAT
	path  string
	at    int64
}

// Write implements keyfile.File. What does not fit is written in part.
func (f *fatFile) Write(data []byte) (int, error) {
	fits, err := f.stick.room(f.at, int64(len(data)))
	if f.stick.fails() {
		fits, err = int64(len(data)/2), f.stick.o.Fail
	}
	if err != nil {
		n, writeErr := f.File.Write(data[:fits])
		f.at += int64(n)
		return n, errors.Join(&fs.PathError{Op: "write", Path: f.path, Err: err}, writeErr)
	}
	n, err := f.File.Write(data)
	f.at += int64(n)
	return n, err
}

// Sync implements keyfile.File.
func (f *fatFile) Sync() error {
	if f.stick.fails() {
		return &fs.PathError{Op: "fsync", Path: f.path, Err: f.stick.o.Fail}
	}
	return f.File.Sync()
}

// Close implements keyfile.File.
func (f *fatFile) Close() error {
	err := f.File.Close()
	now := time.Now().Truncate(fatTime)
	if timeErr := os.Chtimes(f.path, now, now); timeErr != nil && !errors.Is(timeErr, fs.ErrNotExist) {
		err = errors.Join(err, timeErr)
	}
	return err
}

var _ keyfile.Layer = (*FAT)(nil)
