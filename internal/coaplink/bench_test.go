package coaplink

import (
	"context"
	"crypto/tls"
	"fmt"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/dtls/v3/pkg/protocol/alert"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// BenchmarkHandshake measures both ends together, on one machine: cold, the
// device verifies a binding that it has not seen; cached, it knows it.
func BenchmarkHandshake(b *testing.B) {
	p := newPKG(b, 1)
	key := p.key(b, ibc.RoleDevice, "plc-1", 1)
	addr, _ := serve(b, newServer(key, newPeers("clm-1"), &fakeServices{}))
	device := deviceAt(key, addr)
	once := func(b *testing.B, d *Dialer) {
		link, err := d.Dial(context.Background(), device)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		_ = link.Close()
		b.StartTimer()
	}
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			d := p.dialer(b, "clm-1", 1)
			b.StartTimer()
			once(b, d)
		}
	})
	b.Run("cached", func(b *testing.B) {
		d := p.dialer(b, "clm-1", 1)
		for b.Loop() {
			once(b, d)
		}
	})
}

// BenchmarkHandshakeUnderFlood measures a cached handshake while first flights
// with forged addresses arrive at a rate per second.
func BenchmarkHandshakeUnderFlood(b *testing.B) {
	for _, rate := range []int{0, 1000, 5000} {
		b.Run(fmt.Sprintf("%d", rate), func(b *testing.B) {
			p := newPKG(b, 1)
			key := p.key(b, ibc.RoleDevice, "plc-1", 1)
			d := p.dialer(b, "clm-1", 1)
			hello := firstFlight(b, d, key)
			addr, _ := serve(b, newServer(key, newPeers("clm-1"), &fakeServices{}))
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan int, 1)
			begun := time.Now()
			go func() {
				if rate == 0 {
					done <- 0
					return
				}
				done <- flood(ctx, b, addr, hello, rate)
			}()
			for b.Loop() {
				link, err := d.Dial(ctx, deviceAt(key, addr))
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				_ = link.Close()
				b.StartTimer()
			}
			cancel()
			b.ReportMetric(float64(<-done)/time.Since(begun).Seconds(), "floods/s")
		})
	}
}

// BenchmarkStrangers measures what a stranger costs a device who completes a
// handshake as far as he can: with a binding that does not verify, and with
// one whose name the device does not know.
func BenchmarkStrangers(b *testing.B) {
	p := newPKG(b, 1)
	key := p.key(b, ibc.RoleDevice, "plc-1", 1)
	s := newServer(key, newPeers("clm-1"), &fakeServices{})
	s.Limits.FirstEvery = time.Nanosecond
	addr, _ := serve(b, s)
	forged := bound(b, p.key(b, ibc.RoleCLM, "clm-9", 1), nil)
	unknown := forged.tls()
	forged.binding.Identity.Name = "clm-1"
	for name, certificate := range map[string]tls.Certificate{"unknown": unknown, "forged": forged.tls()} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				conn, err := connect(b, addr, dtls.WithCertificates(certificate))
				if !isAlert(err, alert.BadCertificate) {
					b.Fatalf("refused with %v", err)
				}
				_ = conn.Close()
			}
		})
	}
}

// BenchmarkConversation measures what an enrolment asks of the channel, without
// the device's own work.
func BenchmarkConversation(b *testing.B) {
	p := newPKG(b, 1)
	key := p.key(b, ibc.RoleDevice, "plc-1", 1)
	services := &fakeServices{
		csr:      make([]byte, 900),
		response: enrol.VerifyResponse{Possession: make([]byte, 72), Statement: make([]byte, ibc.SignatureSize)},
		status:   sampleStatus(key.Identity()),
	}
	addr, _ := serve(b, newServer(key, newPeers("clm-1"), services))
	d := p.dialer(b, "clm-1", 1)
	device := deviceAt(key, addr)
	for b.Loop() {
		if err := wholeConversation(context.Background(), d, device, services); err != nil {
			b.Fatal(err)
		}
	}
}
