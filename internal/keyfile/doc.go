// Package keyfile reads and writes the small files that must never be lost,
// torn or readable by others: keys, certificates, bundles, state.
//
// A durable write is: a temporary file in the same directory, fsync, rename,
// fsync of the directory. A reader therefore sees the old content or the new,
// never a mixture, whatever moment the power fails at.
//
// All writes go through a Layer, so that a test can cut the run at every
// operation (see keyfiletest).
package keyfile

import "errors"

// Sentinels of the package; every error wraps the operation and the path too.
var (
	// ErrExists is wrapped by CreateDurable when the file exists already.
	ErrExists = errors.New("file exists already")
	// ErrPermissions is wrapped when a secret is readable by others.
	ErrPermissions = errors.New("permissions are too open")
	// ErrTooLarge is wrapped when a file exceeds the bound of its reader.
	ErrTooLarge = errors.New("file is too large")
	// ErrReadBack is wrapped when the medium does not return what was written.
	ErrReadBack = errors.New("the medium returned other bytes than were written")
	// ErrLocked is wrapped when another process holds a lock.
	ErrLocked = errors.New("locked by another process")
)

// Permissions of files and directories that hold secrets.
const (
	SecretPerm = 0o600
	PublicPerm = 0o644
	DirPerm    = 0o700
)
