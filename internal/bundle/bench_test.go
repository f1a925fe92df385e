package bundle_test

import (
	"fmt"
	"testing"

	"github.com/edgeclm/edgeclm/internal/bundle"
)

func BenchmarkSeal(b *testing.B) {
	m := setup(b, 1)
	_, to := opener(b)
	device := device(b, m, "plc-0001")
	for b.Loop() {
		seal(b, device, m, to)
	}
}

func BenchmarkOpen(b *testing.B) {
	m := setup(b, 1)
	o, to := opener(b)
	sealed := seal(b, device(b, m, "plc-0001"), m, to)
	for b.Loop() {
		if _, err := bundle.Open(sealed, o); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseManifest1000(b *testing.B) {
	m := setup(b, 1)
	man := manifest(m)
	man.Rows = nil
	for i := range 1000 {
		man.Rows = append(man.Rows, row(fmt.Sprintf("plc-%04d", i), 1, uint64(i+1)))
	}
	data := marshal(b, man, m)
	for b.Loop() {
		if _, err := bundle.ParseManifest(data, m.Params()); err != nil {
			b.Fatal(err)
		}
	}
}
