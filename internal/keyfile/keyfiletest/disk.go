package keyfiletest

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// disk is what a file system has, as far as anybody looked: each directory and
// file as programs see it, as it is for certain after a loss of power, and the
// changes that lie between the two. The content of a file and its entry in a
// directory are durable apart from each other, as POSIX has it: fsync of the
// one says nothing about the other.
type disk struct {
	root    *node
	pending []change
}

// node is a file, a directory or a symbolic link, whatever it is called.
type node struct {
	mode fs.FileMode
	link string

	data  []byte // of a file, durable
	size  int    // of a file, as it is seen
	dirty bool   // the real file may differ from data

	live    map[string]*node // of a directory; nil for what is known not to be there
	durable map[string]*node
}

// entry is what a name in a directory stands for from now on; nil is nothing.
type entry struct {
	dir  *node
	name string
	node *node
}

// change is one that a loss of power may undo: of entries, together, or of a
// file's content.
type change struct {
	entries []entry
	file    *node
	at      int
	data    []byte
}

func (c change) of(dir *node) bool {
	return slices.ContainsFunc(c.entries, func(e entry) bool { return e.dir == dir })
}

// apply makes a change durable, or of a write its first so many bytes.
func (c change) apply(size int) {
	for _, e := range c.entries {
		e.dir.durable[e.name] = e.node
	}
	if c.file != nil {
		c.file.write(c.at, c.data[:size])
	}
}

// write changes the durable content; a gap before it reads as zeros.
func (n *node) write(at int, data []byte) {
	if missing := at + len(data) - len(n.data); missing > 0 {
		n.data = append(n.data, make([]byte, missing)...)
	}
	copy(n.data[at:], data)
	n.dirty = true
}

// put changes entries.
func (d *disk) put(entries ...entry) {
	for _, e := range entries {
		e.dir.live[e.name] = e.node
	}
	d.pending = append(d.pending, change{entries: entries})
}

// write changes the content of a file.
func (d *disk) write(n *node, at int, data []byte) {
	n.size, n.dirty = max(n.size, at+len(data)), true
	d.pending = append(d.pending, change{file: n, at: at, data: slices.Clone(data)})
}

// sync makes changes durable.
func (d *disk) sync(which func(change) bool) {
	var rest []change
	for _, c := range d.pending {
		if which(c) {
			c.apply(len(c.data))
		} else {
			rest = append(rest, c)
		}
	}
	d.pending = rest
}

// find returns the directory of a path, which has to be there, and knows
// afterwards what the path stands for.
func (d *disk) find(path string) (dir *node, name string, err error) {
	parent, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err == nil {
		parent, err = filepath.Abs(parent)
	}
	if err != nil {
		return nil, "", err
	}
	if d.root == nil {
		d.root = &node{mode: fs.ModeDir, live: map[string]*node{}, durable: map[string]*node{}}
	}
	at := string(filepath.Separator)
	dir = d.root
	for _, part := range strings.Split(strings.Trim(parent, at), at) {
		if part == "" {
			continue
		}
		if err := dir.load(at, part); err != nil {
			return nil, "", err
		}
		if dir = dir.live[part]; dir == nil || !dir.mode.IsDir() {
			return nil, "", &fs.PathError{Op: "find", Path: path, Err: fs.ErrNotExist}
		}
		at = filepath.Join(at, part)
	}
	name = filepath.Base(path)
	return dir, name, dir.load(at, name)
}

// load takes down what a name in a directory stands for, if that is not known.
func (n *node) load(dir, name string) error {
	if _, known := n.live[name]; known {
		return nil
	}
	child, err := read(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	n.live[name], n.durable[name] = child, child
	return nil
}

// read returns what is at a path, nil if nothing is. Of a directory, what is in
// it is found when it is asked for.
func read(path string) (*node, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	n := &node{mode: info.Mode()}
	switch {
	case info.IsDir():
		n.live, n.durable = map[string]*node{}, map[string]*node{}
	case info.Mode().IsRegular():
		n.data, err = os.ReadFile(path)
		n.size = len(n.data)
	case info.Mode()&fs.ModeSymlink != 0:
		n.link, err = os.Readlink(path)
	}
	return n, err
}

// lose is the loss of power. Without random, nothing of the pending changes
// gets through but half of the first write to each file. With it, each one
// does or does not, and writes also in part, or as a size without content.
func (d *disk) lose(random *rand.Rand) error {
	if random == nil {
		torn := map[*node]bool{}
		for _, c := range d.pending {
			if c.file != nil && !torn[c.file] {
				torn[c.file] = true
				c.apply(len(c.data) / 2)
			}
		}
	} else {
		d.scatter(random)
	}
	d.pending = nil
	return restore(string(filepath.Separator), d.root)
}

// scatter lets changes through by chance: in some runs few, in some most.
func (d *disk) scatter(random *rand.Rand) {
	chance := []float64{0.1, 0.5, 0.9}[random.IntN(3)]
	for _, c := range d.pending {
		if random.Float64() >= chance {
			continue
		}
		size := len(c.data)
		switch random.IntN(4) {
		case 0:
			size = random.IntN(size + 1)
		case 1:
			// The file has its length, and the blocks were never written.
			if c.file != nil {
				c.data = make([]byte, size)
			}
		}
		c.apply(size)
	}
}

// restore makes the real directory what is durable of it.
func restore(path string, dir *node) error {
	if dir == nil {
		return nil
	}
	for name, is := range dir.live {
		at, want := filepath.Join(path, name), dir.durable[name]
		var err error
		switch {
		case is == want && (is == nil || !is.mode.IsDir() && !is.dirty):
		case is == want && is.mode.IsDir():
			err = restore(at, is)
		default:
			err = errors.Join(os.RemoveAll(at), rebuild(at, want))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// rebuild makes what is not there.
func rebuild(path string, n *node) error {
	switch {
	case n == nil:
		return nil
	case n.mode&fs.ModeSymlink != 0:
		return os.Symlink(n.link, path)
	case !n.mode.IsDir():
		return os.WriteFile(path, n.data, n.mode.Perm())
	}
	if err := os.Mkdir(path, n.mode.Perm()); err != nil {
		return err
	}
	for name, child := range n.durable {
		if err := rebuild(filepath.Join(path, name), child); err != nil {
			return err
		}
	}
	return nil
}
