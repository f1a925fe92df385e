package keyfile_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// Whatever is written through Discard, the disk stays as it is.
func TestDiscardWritesNothing(t *testing.T) {
	base := t.TempDir()
	kept := filepath.Join(base, "kept")
	if err := os.WriteFile(kept, []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	stale := filepath.Join(base, ".kept.tmp-0123456789abcdef")
	if err := os.WriteFile(stale, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f := keyfile.Discard()
	dir := filepath.Join(base, "deep", "er")
	batch := f.NewBatch()
	for what, err := range map[string]error{
		"directory": f.EnsureDirPerm(dir, 0o755),
		"secrets":   f.EnsureDir(dir),
		"sweep":     f.Sweep(dir),
		"sweep too": f.Sweep(base),
		"write":     f.WriteDurable(kept, []byte("after"), 0o600),
		"create":    f.CreateDurable(filepath.Join(dir, "new"), []byte("after"), 0o600),
		"append":    f.AppendDurable(kept, []byte("after")),
		"truncate":  f.TruncateDurable(kept, 0),
		"remove":    f.RemoveDurable(kept),
		"wipe":      f.Wipe(kept),
		"link":      f.LinkDurable(kept, filepath.Join(base, "link")),
		"batch":     batch.Write(kept, []byte("after"), 0o600),
		"commit":    batch.Commit(),
		"read back": f.ReadBack(kept, []byte("after")),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	entries, err := os.ReadDir(base)
	if err != nil || len(entries) != 2 {
		t.Fatalf("%v: %v", entries, err)
	}
	if data, err := os.ReadFile(kept); err != nil || string(data) != "before" {
		t.Errorf("%q: %v", data, err)
	}
	if err := (keyfile.Files{}).ReadBack(kept, []byte("before")); err != nil {
		t.Error(err)
	}
}
