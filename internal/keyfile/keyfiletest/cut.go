// Package keyfiletest is a file layer that fails like a machine does: it cuts a
// run at one operation, and with the power gone, what was not synced by then is
// lost.
package keyfiletest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// ErrCut is the error of the operation at which the run was cut, and of every
// later one.
var ErrCut = errors.New("the run was cut")

// Mode is how a run ends.
type Mode int

// The modes.
const (
	Kill      Mode = iota // the process is killed: what was done stays
	PowerLoss             // what was not synced is undone
)

// Layer is a keyfile.Layer on the real file system that cuts the run. It keeps
// account of what is synced and spares the disk the work. It is not safe for
// concurrent use.
type Layer struct {
	cut   int
	mode  Mode
	count int
	os    keyfile.OS
	undo  []undo
}

// undo takes back an operation until the directory or file that it belongs to
// is synced.
type undo struct {
	dir  string // of an entry
	file *tracked
	do   func() error
}

// tracked is a file that was written, wherever it was renamed to.
type tracked struct{ path string }

// New returns a layer that cuts the run at its n-th operation, counted from 1:
// that one is not done, or half if it is a write. With n = 0 it never cuts.
func New(n int, mode Mode) *Layer { return &Layer{cut: n, mode: mode} }

// Operations returns how many operations were begun.
func (l *Layer) Operations() int { return l.count }

// Cut reports whether the run was cut.
func (l *Layer) Cut() bool { return l.cut > 0 && l.count >= l.cut }

// step begins an operation.
func (l *Layer) step() error {
	if l.Cut() {
		return ErrCut
	}
	l.count++
	if !l.Cut() {
		return nil
	}
	return errors.Join(ErrCut, l.powerLoss())
}

func (l *Layer) powerLoss() error {
	if l.mode != PowerLoss {
		return nil
	}
	var errs []error
	for i := len(l.undo) - 1; i >= 0; i-- {
		// What was in a directory whose removal is durable is gone with it.
		if err := l.undo[i].do(); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// settle forgets what can no longer be undone.
func (l *Layer) settle(durable func(undo) bool) {
	var rest []undo
	for _, u := range l.undo {
		if !durable(u) {
			rest = append(rest, u)
		}
	}
	l.undo = rest
}

// Create implements keyfile.Layer.
func (l *Layer) Create(path string, perm fs.FileMode) (keyfile.File, error) {
	if err := l.step(); err != nil {
		return nil, err
	}
	f, err := l.os.Create(path, perm)
	if err != nil {
		return nil, err
	}
	t := &tracked{path}
	l.undo = append(l.undo, undo{dir: filepath.Dir(path), do: func() error { return os.Remove(t.path) }})
	return &file{f, l, t}, nil
}

// Append implements keyfile.Layer.
func (l *Layer) Append(path string) (keyfile.File, error) {
	if err := l.step(); err != nil {
		return nil, err
	}
	f, err := l.os.Append(path)
	if err != nil {
		return nil, err
	}
	return &file{f, l, &tracked{path}}, nil
}

// Overwrite implements keyfile.Layer.
func (l *Layer) Overwrite(path string) (keyfile.File, error) {
	if err := l.step(); err != nil {
		return nil, err
	}
	f, err := l.os.Overwrite(path)
	if err != nil {
		return nil, err
	}
	return &overwriting{file{f, l, &tracked{path}}, 0}, nil
}

// Rename implements keyfile.Layer.
func (l *Layer) Rename(from, to string, replace bool) error {
	if err := l.step(); err != nil {
		return err
	}
	restore := snapshot(to)
	if err := l.os.Rename(from, to, replace); err != nil {
		return err
	}
	for _, u := range l.undo {
		if u.file != nil && u.file.path == from {
			u.file.path = to
		}
	}
	l.undo = append(l.undo, undo{dir: filepath.Dir(to), do: func() error {
		if err := os.Rename(to, from); err != nil {
			return err
		}
		for _, u := range l.undo {
			if u.file != nil && u.file.path == to {
				u.file.path = from
			}
		}
		return restore()
	}})
	return nil
}

// Remove implements keyfile.Layer.
func (l *Layer) Remove(path string) error {
	if err := l.step(); err != nil {
		return err
	}
	restore := snapshot(path)
	if err := l.os.Remove(path); err != nil {
		return err
	}
	l.undo = append(l.undo, undo{dir: filepath.Dir(path), do: restore})
	return nil
}

// Symlink implements keyfile.Layer.
func (l *Layer) Symlink(target, path string) error {
	if err := l.step(); err != nil {
		return err
	}
	if err := os.Symlink(target, path); err != nil {
		return err
	}
	l.undo = append(l.undo, undo{dir: filepath.Dir(path), do: func() error { return os.Remove(path) }})
	return nil
}

// snapshot returns what makes a file, an empty directory or a symbolic link
// again, as it is now; nothing if there is none.
func snapshot(path string) func() error {
	if target, err := os.Readlink(path); err == nil {
		return func() error { return os.Symlink(target, path) }
	}
	if data, err := os.ReadFile(path); err == nil {
		return func() error { return os.WriteFile(path, data, keyfile.SecretPerm) }
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return func() error { return os.Mkdir(path, keyfile.DirPerm) }
	}
	return func() error { return nil }
}

// Truncate implements keyfile.Layer.
func (l *Layer) Truncate(path string, size int64) error {
	if err := l.step(); err != nil {
		return err
	}
	return l.os.Truncate(path, size)
}

// Mkdir implements keyfile.Layer.
func (l *Layer) Mkdir(path string, perm fs.FileMode) error {
	if err := l.step(); err != nil {
		return err
	}
	if err := l.os.Mkdir(path, perm); err != nil {
		return err
	}
	l.undo = append(l.undo, undo{dir: filepath.Dir(path), do: func() error { return os.RemoveAll(path) }})
	return nil
}

// SyncDir implements keyfile.Layer.
func (l *Layer) SyncDir(path string) error {
	if err := l.step(); err != nil {
		return err
	}
	l.settle(func(u undo) bool { return u.file == nil && u.dir == filepath.Clean(path) })
	return nil
}

type file struct {
	keyfile.File
	layer   *Layer
	tracked *tracked
}

// Write implements keyfile.File; the write at which the run is cut is torn.
func (f *file) Write(data []byte) (int, error) {
	size := int64(0)
	if info, err := os.Stat(f.tracked.path); err == nil {
		size = info.Size()
	}
	over := f.layer.Cut()
	if err := f.layer.step(); err != nil {
		if over || f.layer.mode == PowerLoss {
			return 0, err
		}
		n, writeErr := f.File.Write(data[:len(data)/2])
		return n, errors.Join(err, writeErr)
	}
	t := f.tracked
	f.layer.undo = append(f.layer.undo, undo{file: t, do: func() error {
		// Half of what was not synced may have reached the disk.
		return os.Truncate(t.path, size+int64(len(data))/2)
	}})
	return f.File.Write(data)
}

// Sync implements keyfile.File.
func (f *file) Sync() error {
	if err := f.layer.step(); err != nil {
		return err
	}
	f.layer.settle(func(u undo) bool { return u.file == f.tracked })
	return nil
}

// overwriting is a file whose content is being replaced.
type overwriting struct {
	file
	at int
}

// Write implements keyfile.File; the write at which the run is cut is torn.
func (f *overwriting) Write(data []byte) (int, error) {
	before, err := os.ReadFile(f.tracked.path)
	if err != nil {
		return 0, err
	}
	over := f.layer.Cut()
	if err := f.layer.step(); err != nil {
		if over || f.layer.mode == PowerLoss {
			return 0, err
		}
		n, writeErr := f.File.Write(data[:len(data)/2])
		return n, errors.Join(err, writeErr)
	}
	// Half of what was not synced may have reached the disk.
	t, torn := f.tracked, slices.Clone(before)
	copy(torn[min(f.at, len(torn)):], data[:len(data)/2])
	f.layer.undo = append(f.layer.undo, undo{file: t, do: func() error { return os.WriteFile(t.path, torn, keyfile.SecretPerm) }})
	f.at += len(data)
	return f.File.Write(data)
}
