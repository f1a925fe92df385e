package pkgen_test

import (
	"context"
	"errors"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

// perRun is how many identities a run of the benchmarks has.
const perRun = 512

// hybrid is a recipient as devices have it.
func hybrid(b *testing.B) bundle.Recipient {
	b.Helper()
	_, to, err := bundle.GenerateOpener()
	if err != nil {
		b.Fatal(err)
	}
	return to
}

// rate reports identities per second.
func rate(b *testing.B) {
	b.Helper()
	b.ReportMetric(float64(b.N*perRun)/b.Elapsed().Seconds(), "identities/s")
}

// BenchmarkIssue is a run of devices without the time of syncs: all of it, from
// the plan to the signed manifest. It reports how many times the bare cost it takes.
func BenchmarkIssue(b *testing.B) {
	c := initPKG(b)
	o := withCLM(b, c)
	to := hybrid(b)
	var requests []pkgen.Request
	for _, name := range manyNames(perRun) {
		requests = append(requests, pkgen.Request{Role: ibc.RoleDevice, Name: name, Recipient: &to})
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
	rate(b)
	perIssue := b.Elapsed() / time.Duration(b.N)
	run := bare(b)
	start := time.Now()
	run()
	b.ReportMetric(float64(perIssue)/float64(time.Since(start)), "x-bare")
	if err := p.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkBare is what no way of issuing can do without: see bare.
func BenchmarkBare(b *testing.B) {
	run := bare(b)
	for b.Loop() {
		run()
	}
	rate(b)
}

// bare returns a run of the bare cost, on all cores: two s*H, of the identity and
// of the bundle's payload, and an age seal of a bundle's size to a hybrid recipient.
func bare(b *testing.B) func() {
	b.Helper()
	master, err := ibc.Setup(config("").Random, 1)
	if err != nil {
		b.Fatal(err)
	}
	to, document, names := hybrid(b), make([]byte, 800), manyNames(perRun)
	one := func(name string) error {
		key, err := master.Extract(ibc.Identity{Role: ibc.RoleDevice, Name: name, Epoch: 1, Generation: 1})
		if err != nil {
			return err
		}
		_, signErr := master.Sign(ibc.KindBundle, document)
		_, sealErr := to.Seal(slices.Concat(document, key.Bytes()))
		return errors.Join(signErr, sealErr)
	}
	return func() {
		var wg sync.WaitGroup
		workers := runtime.GOMAXPROCS(0)
		for w := range workers {
			wg.Go(func() {
				for i := w; i < perRun; i += workers {
					if err := one(names[i]); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
}
