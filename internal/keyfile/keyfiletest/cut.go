// Package keyfiletest is a file layer that fails like a machine does: it cuts a
// run at one operation, and with the power gone, what was not synced by then is
// lost, all of it or any part of it.
package keyfiletest

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"sync"

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
	Scatter               // of what was not synced, any part is there, in any order
)

// Layer is a keyfile.Layer on the real file system that cuts the run. It keeps
// account of what is synced and spares the disk the work. It is safe for
// concurrent use.
type Layer struct {
	mu     sync.Mutex
	cut    int
	mode   Mode
	count  int
	os     keyfile.OS
	disk   disk
	random *rand.Rand // of Scatter
}

// New returns a layer that cuts the run at its n-th operation, counted from 1:
// that one is not done, or half if it is a write. With n = 0 it never cuts.
func New(n int, mode Mode) *Layer {
	return &Layer{cut: n, mode: mode, random: rand.New(rand.NewPCG(uint64(n), 0))}
}

// NewScattered is New with Scatter, and says by a seed which part of what was
// not synced is there.
func NewScattered(n int, seed uint64) *Layer {
	return &Layer{cut: n, mode: Scatter, random: rand.New(rand.NewPCG(uint64(n), seed))}
}

// Operations returns how many operations were begun.
func (l *Layer) Operations() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// Cut reports whether the run was cut.
func (l *Layer) Cut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over()
}

func (l *Layer) over() bool { return l.cut > 0 && l.count >= l.cut }

// step begins an operation.
func (l *Layer) step() error {
	if l.over() {
		return ErrCut
	}
	l.count++
	if !l.over() {
		return nil
	}
	switch l.mode {
	case PowerLoss:
		return errors.Join(ErrCut, l.disk.lose(nil))
	case Scatter:
		return errors.Join(ErrCut, l.disk.lose(l.random))
	}
	return ErrCut
}

// Create implements keyfile.Layer.
func (l *Layer) Create(path string, perm fs.FileMode) (keyfile.File, error) {
	return l.open(path, func() (keyfile.File, error) { return l.os.Create(path, perm) }, func(dir *node, name string) *file {
		n := &node{mode: perm, dirty: true}
		l.disk.put(entry{dir, name, n})
		return &file{node: n}
	})
}

// Append implements keyfile.Layer.
func (l *Layer) Append(path string) (keyfile.File, error) {
	return l.open(path, func() (keyfile.File, error) { return l.os.Append(path) }, func(dir *node, name string) *file {
		n := dir.live[name]
		return &file{node: n, at: n.size}
	})
}

// Overwrite implements keyfile.Layer.
func (l *Layer) Overwrite(path string) (keyfile.File, error) {
	return l.open(path, func() (keyfile.File, error) { return l.os.Overwrite(path) }, func(dir *node, name string) *file {
		return &file{node: dir.live[name]}
	})
}

func (l *Layer) open(path string, open func() (keyfile.File, error), note func(dir *node, name string) *file) (keyfile.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.step(); err != nil {
		return nil, err
	}
	dir, name, err := l.disk.find(path)
	if err != nil {
		return nil, err
	}
	real, err := open()
	if err != nil {
		return nil, err
	}
	f := note(dir, name)
	f.File, f.layer = real, l
	return f, nil
}

// change does an operation on entries of directories, once it is noted as of
// when it was found.
func (l *Layer) change(do func() error, note func() ([]entry, error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.step(); err != nil {
		return err
	}
	entries, err := note()
	if err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	l.disk.put(entries...)
	return nil
}

// Rename implements keyfile.Layer. It is one change of both directories, as on
// a file system with a journal.
func (l *Layer) Rename(from, to string, replace bool) error {
	return l.change(func() error { return l.os.Rename(from, to, replace) }, func() ([]entry, error) {
		source, was, err := l.disk.find(from)
		if err != nil {
			return nil, err
		}
		target, is, err := l.disk.find(to)
		return []entry{{source, was, nil}, {target, is, source.live[was]}}, err
	})
}

// Remove implements keyfile.Layer.
func (l *Layer) Remove(path string) error {
	return l.change(func() error { return l.os.Remove(path) }, func() ([]entry, error) {
		dir, name, err := l.disk.find(path)
		return []entry{{dir, name, nil}}, err
	})
}

// Mkdir implements keyfile.Layer.
func (l *Layer) Mkdir(path string, perm fs.FileMode) error {
	return l.put(path, func() error { return l.os.Mkdir(path, perm) },
		&node{mode: perm | fs.ModeDir, live: map[string]*node{}, durable: map[string]*node{}})
}

// Symlink implements keyfile.Layer.
func (l *Layer) Symlink(target, path string) error {
	return l.put(path, func() error { return l.os.Symlink(target, path) }, &node{mode: fs.ModeSymlink, link: target})
}

func (l *Layer) put(path string, do func() error, n *node) error {
	return l.change(do, func() ([]entry, error) {
		dir, name, err := l.disk.find(path)
		return []entry{{dir, name, n}}, err
	})
}

// Truncate implements keyfile.Layer.
func (l *Layer) Truncate(path string, size int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.step(); err != nil {
		return err
	}
	dir, name, err := l.disk.find(path)
	if err != nil {
		return err
	}
	if err := l.os.Truncate(path, size); err != nil {
		return err
	}
	n := dir.live[name]
	l.disk.sync(func(c change) bool { return c.file == n })
	n.write(int(size), nil)
	n.data, n.size = n.data[:size], int(size)
	return nil
}

// SyncDir implements keyfile.Layer.
func (l *Layer) SyncDir(path string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.step(); err != nil {
		return err
	}
	dir, _, err := l.disk.find(filepath.Join(path, "x"))
	if err != nil {
		return err
	}
	l.disk.sync(func(c change) bool { return c.of(dir) })
	return nil
}

type file struct {
	keyfile.File
	layer *Layer
	node  *node
	at    int
}

// Write implements keyfile.File; the write at which the run is cut is torn.
func (f *file) Write(data []byte) (int, error) {
	f.layer.mu.Lock()
	defer f.layer.mu.Unlock()
	over := f.layer.over()
	if !over && f.layer.mode == Scatter {
		// Some of it may get there though it is the one that is cut.
		f.layer.disk.write(f.node, f.at, data)
	}
	if err := f.layer.step(); err != nil {
		if over || f.layer.mode != Kill {
			return 0, err
		}
		n, writeErr := f.File.Write(data[:len(data)/2])
		return n, errors.Join(err, writeErr)
	}
	if f.layer.mode != Scatter {
		f.layer.disk.write(f.node, f.at, data)
	}
	f.at += len(data)
	return f.File.Write(data)
}

// Sync implements keyfile.File.
func (f *file) Sync() error {
	f.layer.mu.Lock()
	defer f.layer.mu.Unlock()
	if err := f.layer.step(); err != nil {
		return err
	}
	f.layer.disk.sync(func(c change) bool { return c.file == f.node })
	return nil
}

var _ keyfile.Layer = (*Layer)(nil)
