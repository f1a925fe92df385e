package keyfile

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// File is a file open for writing.
type File interface {
	io.Writer
	// Sync makes the content written so far durable.
	Sync() error
	Close() error
}

// Layer is what durable writes need of a file system. Paths are native.
type Layer interface {
	// Create opens a new file for writing; one that exists is an error.
	Create(path string, perm fs.FileMode) (File, error)
	// Append opens a file that exists for writing at its end.
	Append(path string) (File, error)
	// Overwrite opens a regular file that exists for writing from its begin,
	// over what is there.
	Overwrite(path string) (File, error)
	// Rename moves a file; with replace false, an existing target is
	// fs.ErrExist.
	Rename(from, to string, replace bool) error
	Remove(path string) error
	// Truncate cuts a file to size and makes that durable.
	Truncate(path string, size int64) error
	Mkdir(path string, perm fs.FileMode) error
	// Symlink makes a symbolic link; a path that exists is an error.
	Symlink(target, path string) error
	// SyncDir makes the entries of a directory durable.
	SyncDir(path string) error
}

// OS is the Layer of the operating system.
type OS struct{}

// Create implements Layer.
func (OS) Create(path string, perm fs.FileMode) (File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
}

// Append implements Layer.
func (OS) Append(path string) (File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
}

// Overwrite implements Layer.
func (OS) Overwrite(path string) (File, error) {
	return os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
}

// Rename implements Layer.
func (l OS) Rename(from, to string, replace bool) error {
	if replace {
		return os.Rename(from, to)
	}
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ENOTSUP):
		return LookAndRename(l, from, to)
	}
	return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
}

// LookAndRename moves a file where the file system cannot refuse to replace
// another by itself (FAT and exFAT by FUSE): the target is looked for first. The
// caller sees to it that nobody makes the target in between.
func LookAndRename(l Layer, from, to string) error {
	_, err := os.Lstat(to)
	if err == nil {
		err = fs.ErrExist
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return l.Rename(from, to, true)
}

// Remove implements Layer.
func (OS) Remove(path string) error { return os.Remove(path) }

// Truncate implements Layer.
func (OS) Truncate(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Sync(), f.Close())
}

// Mkdir implements Layer.
func (OS) Mkdir(path string, perm fs.FileMode) error { return os.Mkdir(path, perm) }

// Symlink implements Layer.
func (OS) Symlink(target, path string) error { return os.Symlink(target, path) }

// SyncDir implements Layer. Where a directory cannot be synced, which some file
// systems say with EINVAL, the whole file system is.
func (OS) SyncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, unix.EINVAL) {
		err = unix.Syncfs(int(d.Fd()))
	}
	return errors.Join(err, d.Close())
}
