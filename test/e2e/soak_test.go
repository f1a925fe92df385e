//go:build soak

package e2e

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/coaplink/lossy"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
)

var (
	soakRenewals = flag.Int("renewals", 10000, "renewals in a row of one device")
	soakKills    = flag.Int("kills", 1000, "renewals while agents are killed")
	soakDevices  = flag.Int("devices", 10, "agents that are killed, side by side")
)

// footprint is what a leak would make grow.
type footprint struct {
	files, descriptors, threads, memory int // of the device
	goroutines, ownDescriptors, heap    int // of the CLM
}

func measure(t *testing.T, dir string, p *process) (f footprint) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(string, os.DirEntry, error) error { f.files++; return nil }); err != nil {
		t.Fatal(err)
	}
	f.descriptors, f.threads, f.memory = p.descriptors(t), p.status(t, "Threads"), p.status(t, "VmRSS")
	f.heap, f.goroutines = heapWithout("internal/labca."), runtime.NumGoroutine()
	f.ownDescriptors = len(value[[]os.DirEntry](t)(os.ReadDir("/proc/self/fd")))
	return f
}

// descriptors counts the open files.
func (p *process) descriptors(t testing.TB) int {
	t.Helper()
	return len(value[[]os.DirEntry](t)(os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))))
}

// heapWithout returns the bytes in use but those that a package asked for: the
// lab CA, in the same process, remembers every certificate.
func heapWithout(pkg string) (bytes int) {
	runtime.GC() // the profile is that of the last collection
	runtime.GC()
	records := make([]runtime.MemProfileRecord, 1<<14)
	n, _ := runtime.MemProfile(records, false)
next:
	for _, r := range records[:min(n, len(records))] {
		for frames := runtime.CallersFrames(r.Stack()); ; {
			frame, more := frames.Next()
			if strings.Contains(frame.Function, pkg) {
				continue next
			}
			if !more {
				break
			}
		}
		bytes += int(r.InUseBytes())
	}
	return bytes
}

// TestSoakRenewals: ten thousand renewals of one device leave no more files,
// descriptors, goroutines and memory behind than the first hundred, at either
// end.
func TestSoakRenewals(t *testing.T) {
	runtime.MemProfileRate = 16 << 10
	p := newPlant(t)
	p.addresses = []string{"127.0.0.1:1"} // a stranger gets one handshake a second
	n := p.provision("plc-1", fleet.ECDSAP256)
	device := value[*process](t)(startAgent(n.dir, "127.0.0.1:0", buildAgent(t)))
	p.commission(map[string]string{n.name: device.addr})
	var warm footprint
	began := time.Now()
	for i := range *soakRenewals {
		if result := p.run(n.name); result.Outcome != enrol.OutcomeRenewed {
			t.Fatalf("renewal %d: %s: %v", i, result.Outcome, result.Err)
		}
		if i == 99 {
			warm = measure(t, n.dir, device)
			t.Logf("after 100: %+v", warm)
		}
		if i%1000 == 999 {
			t.Logf("after %d, %s each: %+v", i+1, (time.Since(began) / time.Duration(i+1)).Round(100*time.Microsecond), measure(t, n.dir, device))
		}
	}
	end := measure(t, n.dir, device)
	for what, grown := range map[string][2]int{
		"files": {end.files, warm.files}, "descriptors": {end.descriptors, warm.descriptors},
		"threads": {end.threads, warm.threads + 3}, "memory": {end.memory, warm.memory + 4<<20},
		"goroutines of the CLM": {end.goroutines, warm.goroutines + 3}, "descriptors of the CLM": {end.ownDescriptors, warm.ownDescriptors + 3},
		"heap of the CLM": {end.heap, warm.heap + 4<<20},
	} {
		if grown[0] > grown[1] {
			t.Errorf("%s: %d, allowed were %d", what, grown[0], grown[1])
		}
	}
	// SIGQUIT makes the runtime list its goroutines.
	_ = device.signal(syscall.SIGQUIT)
	if running := strings.Count(device.log(), "\ngoroutine "); running == 0 || running > 20 {
		t.Errorf("the device ended with %d goroutines", running)
	} else {
		t.Logf("the device ended with %d goroutines", running)
	}
}

// TestSoakKills: agents are killed at random moments of a thousand renewals
// over a link that loses a fifth of all datagrams. Whenever one starts it has a
// valid pair, and every renewal ends well at last.
func TestSoakKills(t *testing.T) {
	program := buildAgent(t)
	p := newPlant(t)
	p.addresses = []string{"127.0.0.1:1"}
	p.runner.Policy.MaxAttempts, p.runner.Policy.HookTries = 1<<20, 1<<20
	p.dialer.Timeouts.Silence, p.dialer.Timeouts.Handshake = 3*time.Second, 10*time.Second
	var kills, renewed atomic.Int64
	var workers sync.WaitGroup
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	nodes, addresses := make([]*node, *soakDevices), map[string]string{}
	devices := make([]*process, *soakDevices)
	for i := range nodes {
		nodes[i] = p.provision(fmt.Sprintf("plc-%d", i), fleet.ECDSAP256)
		devices[i] = value[*process](t)(startAgent(nodes[i].dir, "127.0.0.1:0", program))
		addresses[nodes[i].name] = lossy.Start(t, devices[i].addr, 0.2, seed+uint64(i))
	}
	p.commission(addresses)
	for i, n := range nodes {
		if result := p.run(n.name); result.Outcome != enrol.OutcomeRenewed {
			t.Fatalf("%s: %v", n.name, result.Err)
		}
		dice := rand.New(rand.NewPCG(seed, uint64(i)))
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			device := devices[i]
			for {
				select {
				case <-stop:
					_ = device.signal(syscall.SIGTERM)
					return
				case <-time.After(time.Duration(dice.Float64() * float64(4*time.Second))):
				}
				_ = device.signal(syscall.SIGKILL)
				kills.Add(1)
				checkPair(t, n)
				next, err := startAgent(n.dir, device.addr, program)
				if err != nil {
					t.Errorf("%s does not come back: %v", n.name, err)
					return
				}
				device = next
			}
		}()
		workers.Go(func() {
			defer func() { close(stop); <-stopped; checkPair(t, n) }()
			for range *soakKills / *soakDevices {
				for try := 0; ; try++ {
					ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
					result := p.runner.Run(ctx, n.name, true)
					cancel()
					if result.Outcome == enrol.OutcomeRenewed {
						renewed.Add(1)
						break
					}
					if try == 100 || t.Failed() {
						t.Errorf("%s is stranded: %s: %v", n.name, result.Outcome, result.Err)
						return
					}
				}
			}
		})
	}
	workers.Wait()
	t.Logf("%d renewals, %d kills", renewed.Load(), kills.Load())
}

// checkPair wants a complete active pair, with a certificate of the plant's CA,
// whatever the moment at which the agent ended.
func checkPair(t *testing.T, n *node) {
	report, err := agent.Inspect(n.dir, time.Now())
	if err != nil {
		t.Errorf("%s: %v", n.name, err)
		return
	}
	switch {
	case report.Active == nil:
		t.Errorf("%s has no active certificate", n.name)
	case !report.KeyFits:
		t.Errorf("%s: the key is not that of the certificate", n.name)
	}
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(n.p.ca.Root())
	chain, err := os.ReadFile(filepath.Join(n.dir, "active", "chain.pem"))
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		c, e := x509.ParseCertificate(block.Bytes)
		err = errors.Join(err, e)
		if e == nil {
			between.AddCert(c)
		}
	}
	if err == nil && report.Active != nil {
		_, err = report.Active.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	}
	if err != nil {
		t.Errorf("%s: %v", n.name, err)
	}
}
