package pkgen_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

// interruptedRefresh leaves a note of share files.
func interruptedRefresh(t testing.TB) (pkgen.Config, []byte) {
	t.Helper()
	x := newCeremony(t, 2, "alice", "bob")
	c := initShared(t, x)
	c.Files = keyfile.On(keyfiletest.New(14, keyfiletest.Kill))
	p, _, err := x.open(c, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Reshare(x.options)
	if err := errors.Join(err, p.Close()); !errors.Is(err, keyfiletest.ErrCut) {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(c.Dir, "shares.pending.json"))
	if err != nil {
		t.Fatal(err)
	}
	return c, data
}

// FuzzPending: what is taken of a note of share files is written the same, and
// names nothing but share files: what it names is wiped one day.
func FuzzPending(f *testing.F) {
	_, data := interruptedRefresh(f)
	f.Add(data)
	f.Add(bytes.Replace(data, []byte("share-1-alice.s2.share.age"), []byte("master.age"), 1))
	f.Add([]byte(`{"version":1,"sharing":{},"files":[]}`))
	if _, err := pkgen.ParsePending(data); err != nil {
		f.Fatal(err)
	}
	if _, err := pkgen.ParsePending(bytes.Replace(data, []byte("share-1-alice.s2.share.age"), []byte("master.age"), 1)); err == nil {
		f.Fatal("a note may name what is no share file")
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		again, err := pkgen.ParsePending(data)
		if err != nil {
			return
		}
		if twice, err := pkgen.ParsePending(again); err != nil || !bytes.Equal(twice, again) {
			t.Fatalf("%v", err)
		}
	})
}
