package keyfile

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// tempMark is part of the name of every temporary file, linkMark of every
// temporary link.
const (
	tempMark = ".tmp-"
	linkMark = ".link-"
)

// streamBuffer is how many bytes of a stream are written at once.
const streamBuffer = 256 << 10

// Files writes durably through a Layer. The zero value uses the operating
// system. It is safe for concurrent use.
type Files struct{ layer Layer }

// On returns Files that write through layer.
func On(layer Layer) Files { return Files{layer} }

// Layer returns the layer that f writes through.
func (f Files) Layer() Layer { return f.fs() }

func (f Files) fs() Layer {
	if f.layer == nil {
		return OS{}
	}
	return f.layer
}

// WriteDurable writes a file durably, replacing what is there.
func WriteDurable(path string, data []byte, perm fs.FileMode) error {
	return Files{}.WriteDurable(path, data, perm)
}

// CreateDurable writes a file durably; one that exists is an error that wraps
// ErrExists, and is left alone.
func CreateDurable(path string, data []byte, perm fs.FileMode) error {
	return Files{}.CreateDurable(path, data, perm)
}

// WriteDurable writes a file durably, replacing what is there.
func (f Files) WriteDurable(path string, data []byte, perm fs.FileMode) error {
	b := f.NewBatch()
	if err := b.Write(path, data, perm); err != nil {
		return err
	}
	return b.Commit()
}

// ReplaceDurable is WriteDurable for a file on a medium that may have no journal
// and whose driver may remove the file before it renames its successor: the
// successor's temporary name is durable before that, so that one of the two is
// there at any moment (see Interrupted).
func (f Files) ReplaceDurable(path string, data []byte, perm fs.FileMode) error {
	_, err := f.ReplaceDurableFrom(path, bytes.NewReader(data), perm)
	return err
}

// Content is what a file has: its size in bytes and SHA-256.
type Content struct {
	Size   int64
	SHA256 [sha256.Size]byte
}

// ReplaceDurableFrom is ReplaceDurable of content that is written rather than
// held. It returns what was written, for ReadBackContent.
func (f Files) ReplaceDurableFrom(path string, content io.WriterTo, perm fs.FileMode) (Content, error) {
	var written Content
	temp, err := f.createTemp(path, perm, func(w io.Writer) error {
		digest := sha256.New()
		out := bufio.NewWriterSize(io.MultiWriter(w, digest), streamBuffer)
		n, err := content.WriteTo(out)
		if err := errors.Join(err, out.Flush()); err != nil {
			return err
		}
		written = Content{n, [sha256.Size]byte(digest.Sum(nil))}
		return nil
	})
	if err == nil {
		err = f.fs().SyncDir(filepath.Dir(path))
	}
	if err == nil {
		err = f.fs().Rename(temp, path, true)
	}
	if err == nil {
		err = f.fs().SyncDir(filepath.Dir(path))
	}
	if err != nil {
		return written, fmt.Errorf("replace %s: %w", path, err)
	}
	return written, nil
}

// CreateDurable writes a file durably; one that exists is an error that wraps
// ErrExists, and is left alone.
func (f Files) CreateDurable(path string, data []byte, perm fs.FileMode) error {
	b := f.NewBatch()
	if err := b.Create(path, data, perm); err != nil {
		return err
	}
	return b.Commit()
}

// Batch writes several files and syncs each of their directories once. What
// was written is durable when Commit has returned nil. It is not safe for
// concurrent use.
type Batch struct {
	files Files
	dirs  map[string]bool
}

// NewBatch starts a batch.
func (f Files) NewBatch() *Batch { return &Batch{files: f, dirs: map[string]bool{}} }

// Write adds a file, replacing what is there.
func (b *Batch) Write(path string, data []byte, perm fs.FileMode) error {
	return b.put(path, data, perm, true)
}

// Create adds a file; one that exists is an error that wraps ErrExists.
func (b *Batch) Create(path string, data []byte, perm fs.FileMode) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("create %s: %w", path, ErrExists)
	}
	return b.put(path, data, perm, false)
}

func (b *Batch) put(path string, data []byte, perm fs.FileMode, replace bool) error {
	layer := b.files.fs()
	temp, err := b.files.writeTemp(path, data, perm)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := layer.Rename(temp, path, replace); err != nil {
		_ = layer.Remove(temp)
		if errors.Is(err, fs.ErrExist) && !replace {
			return fmt.Errorf("create %s: %w", path, ErrExists)
		}
		return fmt.Errorf("write %s: %w", path, err)
	}
	b.dirs[filepath.Dir(path)] = true
	return nil
}

// Commit makes the directory entries of the batch durable.
func (b *Batch) Commit() error {
	for dir := range b.dirs {
		if err := b.files.fs().SyncDir(dir); err != nil {
			return fmt.Errorf("sync directory %s: %w", dir, err)
		}
		delete(b.dirs, dir)
	}
	return nil
}

func (f Files) writeTemp(path string, data []byte, perm fs.FileMode) (string, error) {
	return f.createTemp(path, perm, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

func (f Files) createTemp(path string, perm fs.FileMode, write func(io.Writer) error) (string, error) {
	temp, err := tempName(path, tempMark)
	if err != nil {
		return "", err
	}
	file, err := f.fs().Create(temp, perm)
	if err != nil {
		return "", err
	}
	err = write(file)
	if err == nil {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		_ = f.fs().Remove(temp)
		return "", err
	}
	return temp, nil
}

// tempName returns a new hidden name beside path.
func tempName(path, mark string) (string, error) {
	var suffix [8]byte
	if _, err := rand.Read(suffix[:]); err != nil {
		return "", fmt.Errorf("read random: %w", err)
	}
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+mark+hex.EncodeToString(suffix[:])), nil
}

// LinkDurable is Link, and the link is durable when it has returned nil.
func (f Files) LinkDurable(target, path string) error {
	if err := f.Link(target, path); err != nil {
		return err
	}
	if err := f.fs().SyncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("link %s: %w", path, err)
	}
	return nil
}

// Link makes path a symbolic link to target in one step, replacing what is
// there: whoever follows it finds the old target or the new one.
func (f Files) Link(target, path string) error {
	temp, err := tempName(path, linkMark)
	if err != nil {
		return err
	}
	if err := f.fs().Symlink(target, temp); err != nil {
		return fmt.Errorf("link %s: %w", path, err)
	}
	if err := f.fs().Rename(temp, path, true); err != nil {
		_ = f.fs().Remove(temp)
		return fmt.Errorf("link %s: %w", path, err)
	}
	return nil
}

// AppendDurable adds data to the end of a file that exists and makes it
// durable. A crash may leave any prefix of data, and zeros in place of the rest.
func (f Files) AppendDurable(path string, data []byte) error {
	file, err := f.fs().Append(path)
	if err != nil {
		return fmt.Errorf("append to %s: %w", path, err)
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("append to %s: %w", path, err)
	}
	return nil
}

// TruncateDurable cuts a file to size.
func (f Files) TruncateDurable(path string, size int64) error {
	if err := f.fs().Truncate(path, size); err != nil {
		return fmt.Errorf("truncate %s: %w", path, err)
	}
	return nil
}

// RemoveDurable removes a file; that it does not exist is no error.
func (f Files) RemoveDurable(path string) error {
	err := f.fs().Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = f.fs().SyncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

// RemoveDir removes a directory and the files in it, durably; that it does not
// exist is no error.
func (f Files) RemoveDir(dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := f.DiscardDir(dir); err != nil {
		return err
	}
	return f.fs().SyncDir(filepath.Dir(dir))
}

// DiscardDir is RemoveDir for what is swept at each start: nothing is synced, so
// that a power cut may bring it back.
func (f Files) DiscardDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := f.fs().Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return f.fs().Remove(dir)
}

// Sweep removes the temporary files and links that interrupted writes left in
// dir. The caller holds the lock of whoever writes there.
func (f Files) Sweep(dir string) error {
	if f.discards() {
		return nil // dir need not be there
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("sweep %s: %w", dir, err)
	}
	for _, e := range entries {
		file := e.Type().IsRegular() && isTemp(e.Name(), tempMark)
		link := e.Type() == fs.ModeSymlink && isTemp(e.Name(), linkMark)
		if !file && !link {
			continue
		}
		if err := f.fs().Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("sweep %s: %w", dir, err)
		}
	}
	return nil
}

// IsTemp reports whether a path is that of a temporary file, which a durable
// write renames or an interrupted one has left behind.
func IsTemp(path string) bool { return isTemp(filepath.Base(path), tempMark) }

// isTemp reports whether name is one that tempName makes: hidden, and marked
// with 16 hex digits at its end.
func isTemp(name, mark string) bool {
	at := len(name) - 16 - len(mark)
	if at < 2 || name[0] != '.' || !strings.HasPrefix(name[at:], mark) {
		return false
	}
	_, err := hex.DecodeString(name[at+len(mark):])
	return err == nil
}
