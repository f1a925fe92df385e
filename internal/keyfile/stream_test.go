package keyfile_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgeclm/edgeclm/internal/keyfile"
)

// What was written as a stream is read back by size and hash; a flipped bit, a
// byte more and a byte less are told.
func TestReadBackContent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	data := bytes.Repeat([]byte("0123456789abcdef"), 40_000) // more than one write
	written, err := keyfile.Files{}.ReplaceDurableFrom(path, bytes.NewReader(data), keyfile.PublicPerm)
	if err != nil {
		t.Fatal(err)
	}
	if want := (keyfile.Content{Size: int64(len(data)), SHA256: sha256.Sum256(data)}); written != want {
		t.Errorf("written %+v, want %+v", written, want)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("the file is another: %v", err)
	}
	if err := keyfile.ReadBackContent(path, written); err != nil {
		t.Error(err)
	}
	flipped := bytes.Clone(data)
	flipped[len(data)/2] ^= 1
	for what, other := range map[string][]byte{"flipped": flipped, "longer": append(bytes.Clone(data), 'x'), "shorter": data[1:]} {
		if err := os.WriteFile(path, other, keyfile.PublicPerm); err != nil {
			t.Fatal(err)
		}
		if err := keyfile.ReadBackContent(path, written); !errors.Is(err, keyfile.ErrReadBack) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
