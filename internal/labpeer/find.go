package labpeer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
)

// The certification authorities that edgeclm is tried against, in these
// releases, which test/peers/go.mod builds: smallstep's step-ca, and the SCEP
// server of micromdm.
const (
	StepCA            = "step-ca"
	StepCAVersion     = "v0.30.2"
	SCEPServer        = "scepserver"
	SCEPServerVersion = "v2.3.0"
)

// pinned returns the version of a peer that is built from source, "" of others.
func pinned(name string) string {
	switch name {
	case StepCA:
		return StepCAVersion
	case SCEPServer:
		return SCEPServerVersion
	}
	return ""
}

// DirVariable is the environment variable that names the folder of the peers
// built from source.
const DirVariable = "EDGECLM_PEER_DIR"

// ErrNotInstalled says that a program is neither among the built peers nor on
// the PATH.
var ErrNotInstalled = errors.New("not installed")

// Dir returns the folder of the peers built from source: that of the
// environment, else edgeclm/peers in the user's cache. It makes nothing.
func Dir() (string, error) {
	if dir := os.Getenv(DirVariable); dir != "" {
		return filepath.Abs(dir)
	}
	if cache, err := os.UserCacheDir(); err == nil {
		return filepath.Join(cache, "edgeclm", "peers"), nil
	}
	// A service or a container may set neither XDG_CACHE_HOME nor HOME.
	u, err := user.Current()
	if err != nil || u.HomeDir == "" {
		return "", fmt.Errorf("no cache folder known: set %s", DirVariable)
	}
	return filepath.Join(u.HomeDir, ".cache", "edgeclm", "peers"), nil
}

// Path returns where a peer of a version is put when it is built from source.
func Path(name, version string) (string, error) {
	dir, err := Dir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, version, name), nil
}

// Find returns the path of an external program; a peer of the pinned version
// goes before one on the PATH. The error is ErrNotInstalled if there is none.
func Find(name string) (string, error) {
	if version := pinned(name); version != "" {
		path, err := Path(name, version)
		if err == nil && executable(path) {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		// Where Debian has servers and mkfs; not on everybody's PATH.
		if system := filepath.Join("/usr/sbin", name); executable(system) {
			return system, nil
		}
	}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("%s: %w", name, ErrNotInstalled)
	}
	if err != nil {
		return "", fmt.Errorf("look for %s: %w", name, err)
	}
	return path, nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
