package consumer

import (
	"io/fs"
	"os"

	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// Layer is what publishing needs of a file system.
type Layer interface {
	keyfile.Layer
	// Own sets the owner of a file or directory, where -1 leaves it, and then
	// its permissions. The path is no symbolic link.
	Own(path string, uid, gid int, perm fs.FileMode) error
}

// OS is the Layer of the operating system.
type OS struct{ keyfile.OS }

// Own implements Layer.
func (OS) Own(path string, uid, gid int, perm fs.FileMode) error {
	if uid >= 0 || gid >= 0 {
		if err := os.Lchown(path, uid, gid); err != nil {
			return err
		}
	}
	return os.Chmod(path, perm)
}
