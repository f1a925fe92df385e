package pkgoffline

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/transcript"
)

// thisMachine says what runs, and where. What cannot be read is left out: no
// ceremony fails for the want of a boot ID.
func thisMachine() (transcript.Program, transcript.Host) {
	v := clikit.Version()
	p := transcript.Program{Version: v.Version, Commit: v.Commit, Go: v.Go, SHA256: executableHash()}
	var u unix.Utsname
	h := transcript.Host{Name: "unknown", Kernel: "unknown"}
	if unix.Uname(&u) == nil {
		h.Kernel = cstring(u.Sysname[:]) + " " + cstring(u.Release[:]) + " " + cstring(u.Version[:]) + " " + cstring(u.Machine[:])
		h.Name = cstring(u.Nodename[:])
	}
	if id := firstLine("/etc/machine-id"); len(id) > 0 {
		// machine-id(5): it is confidential, and is to be shown under a keyed hash.
		mac := hmac.New(sha256.New, id)
		mac.Write([]byte("edgeclm/v1/transcript"))
		h.MachineID = hex.EncodeToString(mac.Sum(nil)[:16])
	}
	h.BootID = string(firstLine("/proc/sys/kernel/random/boot_id"))
	return p, h
}

func cstring(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

func firstLine(path string) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, 256))
	if err != nil {
		return nil
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	return line
}

// executableHash is the SHA-256 of what runs, whatever lies under its name by
// now; "" if it cannot be read.
func executableHash() string {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return ""
	}
	return hex.EncodeToString(h.Sum(nil))
}
