package coaplink

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/coaplink/lossy"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// wholeConversation does on one connection what an enrolment does, with bodies
// of several blocks in both directions, and checks what arrives.
func wholeConversation(ctx context.Context, d *Dialer, device fleet.Device, want *fakeServices) error {
	link, err := d.Dial(ctx, device)
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	defer func() { _ = link.Close() }()
	csr, err := link.RequestCSR(ctx, sampleCSRRequest())
	if err != nil || !bytes.Equal(csr, want.csr) {
		return fmt.Errorf("CSR of %d bytes: %w", len(csr), err)
	}
	response, err := link.VerifyCertificate(ctx, enrol.VerifyRequest{Certificates: [][]byte{fakeCertificate(1500), fakeCertificate(1200)}})
	if err != nil || !reflect.DeepEqual(response, want.response) {
		return fmt.Errorf("verify: %w", err)
	}
	if err := link.Activate(ctx, enrol.ID{}, [32]byte{}, time.Minute); err != nil {
		return err
	}
	if err := link.Confirm(ctx, enrol.ID{}, [32]byte{}); err != nil {
		return err
	}
	_, err = link.Status(ctx)
	return err
}

// TestFaultyNetwork: whole conversations over a network that loses, repeats
// and reorders datagrams both ways. No call may reach the device twice: message
// IDs make repetitions of a request harmless.
func TestFaultyNetwork(t *testing.T) {
	for _, c := range []struct {
		name   string
		faults lossy.Faults
		runs   int
	}{
		{"10 percent lost", lossy.Faults{Loss: 0.1, Seed: 1}, 8},
		{"30 percent lost", lossy.Faults{Loss: 0.3, Seed: 2}, 8},
		{"reordered and repeated", lossy.Faults{Duplicate: 0.3, Reorder: 0.3, MaxDelay: 30 * time.Millisecond, Seed: 3}, 8},
		{"everything", lossy.Faults{Loss: 0.15, Duplicate: 0.2, Reorder: 0.2, Seed: 4}, 8},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPKG(t, 1)
			key := p.key(t, ibc.RoleDevice, "plc-1", 1)
			services := &fakeServices{
				csr:      randomBytes(t, 3000),
				response: enrol.VerifyResponse{Possession: randomBytes(t, 72), Statement: randomBytes(t, 96)},
				status:   sampleStatus(key.Identity()),
			}
			s := newServer(key, newPeers("clm-1"), services)
			s.Limits.Slots = 8
			addr, _ := serve(t, s)
			proxy := lossy.New(t, addr, c.faults)
			dialer := p.dialer(t, "clm-1", 1)
			device := deviceAt(key, proxy.Addr())
			var wg sync.WaitGroup
			for range c.runs {
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
					defer cancel()
					if err := wholeConversation(ctx, dialer, device, services); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			for _, call := range []string{"csr", "verify", "activate", "confirm", "status"} {
				if n := services.count(call); n != c.runs {
					t.Errorf("%s ran %d times for %d conversations", call, n, c.runs)
				}
			}
			if forwarded, lost, repeated, delayed := proxy.Counts(); lost+repeated+delayed == 0 {
				t.Errorf("nothing went wrong with %d datagrams", forwarded)
			}
		})
	}
}
