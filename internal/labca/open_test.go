package labca

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// TestOpenAgain: a CA is found again as it was left; two cannot have it open.
func TestOpenAgain(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "ca")
	ca := open(t, dir, Options{})
	c := enrolled(t, ca, newCSR(t, nil, testChallenge, nil))
	if _, err := Open(dir, Options{}); !errors.Is(err, keyfile.ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	if err := ca.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir, Options{Layout: LayoutRA, Key: KeyECDSA})
	if !again.Root().Equal(ca.Root()) || !again.Issuing().Equal(ca.Issuing()) || !again.RA().Equal(ca.RA()) {
		t.Error("another CA was found")
	}
	enrolled(t, again, newCSR(t, nil, testChallenge, nil))
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{{Layout: LayoutSingle}, {Key: KeyRSA}} {
		if _, err := Open(dir, o); !errors.Is(err, ErrOptions) {
			t.Errorf("%+v: %v", o, err)
		}
	}

	b, err := os.ReadFile(filepath.Join(dir, fileIssued))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	var line issued
	if err := json.Unmarshal([]byte(lines[0]), &line); err != nil || len(lines) != 2 || line.Serial != c.SerialNumber.Text(16) {
		t.Errorf("index %q, %v", b, err)
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestOpenRefusals: options that make no sense, and a file that is no CA.
func TestOpenRefusals(t *testing.T) {
	t.Parallel()
	for _, o := range []Options{
		{Lifetime: time.Second}, {Lifetime: -time.Hour}, {Backdate: -1}, {Layout: "flat"}, {Key: "dsa"}, {Layout: LayoutSingle, Key: KeyECDSA},
	} {
		dir := filepath.Join(t.TempDir(), "ca")
		if _, err := Open(dir, o); !errors.Is(err, ErrOptions) {
			t.Errorf("%+v: %v", o, err)
		}
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%+v: a directory was made", o)
		}
	}
	for _, content := range []string{"", "{}", `{"version":2}`, `{"version":1,"root":{}}`} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileCA), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, Options{}); err == nil {
			t.Errorf("%q was opened", content)
		}
	}
}
