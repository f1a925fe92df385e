package clikit

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/provision"
	"github.com/edgeclm/edgeclm/internal/receipt"
)

// Receipt is where a command leaves the receipt for what it took from a medium.
type Receipt struct {
	To   string // a file or directory, "-" for standard output, "" beside what was taken
	None bool
}

// Register adds the flags.
func (r *Receipt) Register(f *pflag.FlagSet) {
	f.StringVar(&r.To, "receipt", "", "file or directory for the receipt instead of the medium, - for standard output")
	f.BoolVar(&r.None, "no-receipt", false, "write no receipt")
}

// Check refuses flags that contradict each other.
func (r *Receipt) Check() error {
	if r.None && r.To != "" {
		return Usage("--receipt and --no-receipt exclude each other")
	}
	return nil
}

// Stdout reports whether the receipt takes the place of the result.
func (r *Receipt) Stdout() bool { return r.To == "-" }

// Clerk writes receipts of one endpoint.
type Clerk struct {
	Receipt
	Program string
	Own     provision.Store // with the installation
	Key     *ibc.PrivateKey
	Now     func() time.Time
	Random  io.Reader
}

// Provisioned returns what a receipt says about a bundle.
func Provisioned(b *bundle.Bundle, changed bool) receipt.Receipt {
	outcome := receipt.Unchanged
	if changed {
		outcome = receipt.Installed
	}
	return receipt.Receipt{Provisioned: &receipt.Provisioned{Payload: b.Signed, Outcome: outcome}}
}

// Leave signs a receipt for a file of a medium, a bundle or a manifest, and
// leaves it there, or where the flags say. A medium may well be read-only, full or
// gone: then the path is empty, and that is a warning on s.Err, unless the flags
// named the place.
func (c Clerk) Leave(s Streams, of string, r receipt.Receipt, rows []receipt.Row) (path string, err error) {
	if c.None {
		return "", nil
	}
	path, err = c.write(s.Out, of, r, rows)
	switch {
	case err != nil && c.To == "":
		Warn(s.Err, c.Program, fmt.Sprintf("all is done, but there is no receipt on the medium: %v (--receipt FILE writes it elsewhere)", err))
		return "", nil
	case err != nil:
		return "", WithHint(fmt.Errorf("receipt: %w", err), "all else is done; the same command again writes the receipt")
	}
	return path, nil
}

func (c Clerk) write(out io.Writer, of string, r receipt.Receipt, rows []receipt.Row) (string, error) {
	var err error
	if r.Installation, err = c.Own.Installation(c.Random); err != nil {
		return "", err
	}
	if r.Board, err = r.Installation.Board(boardSerial()); err != nil {
		return "", err
	}
	r.Time, r.Program = c.Now(), c.Program+" "+Version().Version
	data, err := receipt.Sign(r, rows, c.Key, c.Random)
	if err != nil {
		return "", err
	}
	files := c.Own.Files
	if c.Stdout() {
		_, err := out.Write(data)
		return "", err
	}
	if c.To == "" {
		return receipt.Write(files, receipt.DirOf(of), data, c.Key.Params())
	}
	if info, err := os.Stat(c.To); err == nil && info.IsDir() {
		return receipt.Write(files, filepath.Clean(c.To), data, c.Key.Params())
	}
	return c.To, receipt.WriteFile(files, c.To, data)
}

// boardSerial returns the serial number of the machine: that of the device tree
// on boards, that of the DMI elsewhere, which only root may read; "" if there is
// none.
func boardSerial() string {
	for _, path := range []string{"/sys/firmware/devicetree/base/serial-number", "/sys/class/dmi/id/product_uuid"} {
		// Files of sysfs say a size of 4,096.
		data, err := keyfile.Read(path, 4096)
		if serial := bytes.Trim(data, "\x00\n "); err == nil && len(serial) > 0 {
			return string(serial)
		}
	}
	return ""
}
