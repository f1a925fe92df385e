package pkgen_test

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/edgeclm/edgeclm/internal/pkgen"
)

// BenchmarkIssue100 is a run of a hundred devices without the time of syncs.
func BenchmarkIssue100(b *testing.B) {
	c := initPKG(b)
	o := withCLM(b, c)
	alice := newParty(b)
	var requests []pkgen.Request
	for _, name := range manyNames(100) {
		requests = append(requests, device(name, alice))
	}
	p, err := pkgen.Open(c, passphrase)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		o.Medium = filepath.Join(b.TempDir(), "usb")
		if _, err := p.Issue(context.Background(), requests, o); err != nil {
			b.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		b.Fatal(err)
	}
}
