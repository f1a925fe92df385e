package bundle_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/bundle"
)

// The file is what sha256sum -c takes, and what sha256sum writes is taken.
func TestSums(t *testing.T) {
	dir := t.TempDir()
	sums := bundle.Sums{}
	if err := os.Mkdir(filepath.Join(dir, "001"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"dev-b.e1.g1.bundle.age", "001/dev-a=2.e1.g1.bundle.age"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		sums[file] = sha(file)
	}
	data := sums.Marshal()
	if err := os.WriteFile(filepath.Join(dir, bundle.SumsName), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if tool, err := exec.LookPath("sha256sum"); err == nil {
		check := exec.CommandContext(t.Context(), tool, "-c", "--strict", bundle.SumsName)
		check.Dir = dir
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	again, err := bundle.ParseSums(bytes.ReplaceAll(data, []byte("  dev"), []byte(" *dev")))
	if err != nil || len(again) != 2 || !bytes.Equal(again.Marshal(), data) {
		t.Errorf("%v: %v", again, err)
	}
	row := bundle.Row{File: "dev-b.e1.g1.bundle.age"}
	if again.Of(row) != sha(row.File) || again.Of(bundle.Row{File: "other"}) != (bundle.Hash{}) {
		t.Error("not the hash of the file")
	}
	if row.SHA256 = sha("signed"); again.Of(row) != sha("signed") {
		t.Error("the signed hash does not go first")
	}
}

func sha(s string) bundle.Hash { return sha256.Sum256([]byte(s)) }

func TestSumsRefused(t *testing.T) {
	hash := strings.Repeat("0a", 32)
	for what, text := range map[string]string{
		"no path":         hash + "\n",
		"empty path":      hash + "  \n",
		"one space":       hash + " file\n",
		"upper case":      strings.ToUpper(hash) + "  file\n",
		"short":           hash[2:] + "  file\n",
		"empty line":      "\n",
		"absolute":        hash + "  /etc/passwd\n",
		"outside":         hash + "  ../file\n",
		"not clean":       hash + "  a//b\n",
		"twice":           hash + "  file\n" + hash + "  file\n",
		"escaped newline": "\\" + hash + "  a\\nb\n",
		"too large":       strings.Repeat("x", bundle.MaxSumsSize+1),
	} {
		if _, err := bundle.ParseSums([]byte(text)); !errors.Is(err, bundle.ErrFormat) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzParseSums(f *testing.F) {
	f.Add([]byte(strings.Repeat("0a", 32) + "  dev-a.e1.g1.bundle.age\n"))
	f.Add([]byte(strings.Repeat("ff", 32) + " *001/dev-a.e1.g1.bundle.age"))
	f.Fuzz(func(t *testing.T, data []byte) {
		sums, err := bundle.ParseSums(data)
		if err != nil {
			return
		}
		again, err := bundle.ParseSums(sums.Marshal())
		if err != nil || len(again) != len(sums) {
			t.Fatalf("%v: %v", again, err)
		}
	})
}
