package transcript

import (
	"crypto/sha256"
	"hash"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/edgeclm/edgeclm/internal/hashlog"
	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// Files returns Files that note in the transcript what they write, append to
// and remove. Temporary files are not noted.
func (r *Run) Files() keyfile.Files {
	return keyfile.On(&watch{Layer: r.files.Layer(), run: r, hashes: map[string]hashlog.Hash{}})
}

// watch is a file layer that tells a run what passes through it.
type watch struct {
	keyfile.Layer
	run    *Run
	hashes map[string]hashlog.Hash // of files that were created and not yet renamed; guarded by run.mu
}

// Create implements keyfile.Layer.
func (w *watch) Create(path string, perm fs.FileMode) (keyfile.File, error) {
	f, err := w.Layer.Create(path, perm)
	if err != nil {
		return nil, err
	}
	return &hashedFile{File: f, watch: w, path: path, hash: sha256.New()}, nil
}

// hashedFile takes the hash of what is written.
type hashedFile struct {
	keyfile.File
	watch *watch
	path  string
	hash  hash.Hash
}

// Write implements io.Writer.
func (f *hashedFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	f.hash.Write(p[:n])
	return n, err
}

// Close implements io.Closer.
func (f *hashedFile) Close() error {
	if err := f.File.Close(); err != nil {
		return err
	}
	var sum hashlog.Hash
	f.hash.Sum(sum[:0])
	if keyfile.IsTemp(f.path) {
		f.watch.run.mu.Lock()
		f.watch.hashes[f.path] = sum
		f.watch.run.mu.Unlock()
		return nil
	}
	return f.watch.note(f.path, Written, &sum)
}

// Rename implements keyfile.Layer.
func (w *watch) Rename(from, to string, replace bool) error {
	w.run.mu.Lock()
	sum, known := w.hashes[from]
	delete(w.hashes, from)
	w.run.mu.Unlock()
	change, about := Grown, (*hashlog.Hash)(nil)
	if known {
		change, about = Written, &sum
	}
	// What is in the PKG's directory is held to its transcripts: those are to
	// know of it before.
	if w.run.file(to).PKG {
		if err := w.note(to, change, about); err != nil {
			return err
		}
		return w.Layer.Rename(from, to, replace)
	}
	if err := w.Layer.Rename(from, to, replace); err != nil {
		return err
	}
	return w.note(to, change, about)
}

// Append implements keyfile.Layer.
func (w *watch) Append(path string) (keyfile.File, error) {
	return w.changed(path, w.Layer.Append)
}

// Overwrite implements keyfile.Layer.
func (w *watch) Overwrite(path string) (keyfile.File, error) {
	return w.changed(path, w.Layer.Overwrite)
}

func (w *watch) changed(path string, open func(string) (keyfile.File, error)) (keyfile.File, error) {
	if err := w.note(path, Grown, nil); err != nil {
		return nil, err
	}
	return open(path)
}

// Truncate implements keyfile.Layer.
func (w *watch) Truncate(path string, size int64) error {
	if err := w.note(path, Grown, nil); err != nil {
		return err
	}
	return w.Layer.Truncate(path, size)
}

// Remove implements keyfile.Layer.
func (w *watch) Remove(path string) error {
	if err := w.Layer.Remove(path); err != nil || keyfile.IsTemp(path) {
		return err
	}
	return w.note(path, Removed, nil)
}

// note remembers a change, and writes what is remembered from time to time.
func (w *watch) note(path string, change Change, sum *hashlog.Hash) error {
	f := w.run.file(path)
	f.Change, f.SHA256 = change, sum
	return w.run.locked(func() error {
		where := File{Path: f.Path, PKG: f.PKG}
		if change == Grown && w.run.grown[where] {
			return nil
		}
		if delete(w.run.grown, where); change == Grown {
			w.run.grown[where] = true
		}
		w.run.pending = append(w.run.pending, f)
		if len(w.run.pending) < perLine && !f.PKG {
			return nil
		}
		return w.run.flush()
	})
}

// file says where a file is: relative to the PKG's directory if it lies there.
func (r *Run) file(path string) File {
	abs, err := filepath.Abs(path)
	if err == nil {
		if rel, err := filepath.Rel(r.dir, abs); err == nil && filepath.IsLocal(rel) {
			return File{Path: filepath.ToSlash(rel), PKG: true}
		}
	}
	return File{Path: strings.ToValidUTF8(filepath.Clean(path), "�")}
}
