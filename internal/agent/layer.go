package agent

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// Layer is what the agent needs of a file system.
type Layer interface {
	keyfile.Layer
	// Symlink makes a symbolic link; a path that exists is an error.
	Symlink(target, path string) error
}

// OS is the Layer of the operating system.
type OS struct{ keyfile.OS }

// Symlink implements Layer.
func (OS) Symlink(target, path string) error { return os.Symlink(target, path) }

// swapLink makes path a symbolic link to target in one step: a reader follows
// the old link or the new one.
func swapLink(layer Layer, target, path string) error {
	var suffix [8]byte
	if _, err := rand.Read(suffix[:]); err != nil {
		return fmt.Errorf("read random: %w", err)
	}
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+linkMark+hex.EncodeToString(suffix[:]))
	if err := layer.Symlink(target, temp); err != nil {
		return fmt.Errorf("link %s: %w", path, err)
	}
	if err := layer.Rename(temp, path, true); err != nil {
		_ = layer.Remove(temp)
		return fmt.Errorf("link %s: %w", path, err)
	}
	if err := layer.SyncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("link %s: %w", path, err)
	}
	return nil
}

// linkMark is part of the name of every temporary link.
const linkMark = ".link-"
