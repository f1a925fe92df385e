package pkgen_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/edgeclm/edgeclm/internal/testpeer"
)

// A medium that was copied to a FAT file system and back, by mtools, verifies:
// names, folders and contents. What drivers do on a mounted one is emulated (see
// keyfiletest.FAT), and tried by hand.
func TestMediumOnFATImage(t *testing.T) {
	mkfs, mcopy := testpeer.Look(t, "mkfs.vfat"), testpeer.Look(t, "mcopy")
	f := newFixture(t, 2)
	f.requests = append(f.requests, device("plc-1:a.b_c", f.party), device("a", f.party))
	mustIssue(t, f.config, f.options, f.requests...)
	medium := f.options.Medium
	if err := os.Mkdir(filepath.Join(medium, "001"), 0o700); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	image := filepath.Join(dir, "stick.img")
	for _, argv := range [][]string{
		{mkfs, "-F", "32", "-C", image, "40960"},
		{mcopy, "-s", "-i", image, medium, "::/usb"},
		{mcopy, "-s", "-i", image, "::/usb", dir},
	} {
		if out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", argv, err, out)
		}
	}
	before, after := snapshot(t, medium), snapshot(t, filepath.Join(dir, "usb"))
	if len(before) != len(after) {
		t.Errorf("%d files became %d", len(before), len(after))
	}
	f.options.Medium = filepath.Join(dir, "usb")
	f.check(t)
}
