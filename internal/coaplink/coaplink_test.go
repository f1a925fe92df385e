package coaplink

import (
	"bytes"
	"context"
	"crypto/rand"
	"reflect"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

func randomBytes(t testing.TB, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return b
}

func sampleCSRRequest() enrol.CSRRequest {
	return enrol.CSRRequest{
		Enrolment: enrol.ID{1, 2, 3}, CA: bytes.Repeat([]byte{0x30}, 1500), CAHash: [32]byte{4},
		Key: fleet.ECDSAP384, Enclosed: true,
		Subject:     []fleet.Attribute{{Type: "O", Value: "Plant"}, {Type: "CN", Value: "plc-1"}},
		SANs:        []fleet.Name{{Kind: fleet.KindDNS, Value: "plc-1.plant"}, {Kind: fleet.KindIP, Value: "10.0.0.7"}, {Kind: fleet.KindURI, Value: "urn:plc:1"}},
		KeyUsage:    []string{"digitalSignature", "keyAgreement"},
		ExtKeyUsage: []string{"clientAuth", "serverAuth"},
		Challenge:   []byte("secret"), Time: time.Unix(1_800_000_000, 0).UTC(),
	}
}

func sampleStatus(id ibc.Identity) enrol.DeviceStatus {
	enrolment := enrol.ID{9}
	return enrol.DeviceStatus{
		Version: "1.2.3", Identity: id,
		Active:    &enrol.DeviceCertificate{Serial: "0a0b", SHA256: [32]byte{1}, NotAfter: time.Unix(1_900_000_000, 0).UTC()},
		Staged:    &enrol.DeviceCertificate{Serial: "10", SHA256: [32]byte{2}, NotAfter: time.Unix(1_950_000_000, 0).UTC(), Expired: true},
		Enrolment: &enrolment, Unconfirmed: true, LastError: "hook: exit status 1", Clock: enrol.ClockBehind,
		Time: time.Unix(12, 0).UTC(), Anchors: [][32]byte{{7}, {8}},
		KeyAndCSR: 1234 * time.Microsecond, Verification: 5678 * time.Microsecond,
		AnchorSerial: 3, Endpoint: "plc-1.plant:8883", KeyStore: "tpm", RolledBack: &[32]byte{9},
	}
}

// TestAllResources walks through an enrolment's calls on one connection, with
// a request and a response that need several blocks.
func TestAllResources(t *testing.T) {
	p := newPKG(t, 1)
	key := p.key(t, ibc.RoleDevice, "plc-1", 1)
	services := &fakeServices{
		csr:      randomBytes(t, 3000),
		response: enrol.VerifyResponse{Certificate: [32]byte{5}, Possession: randomBytes(t, 512), Statement: randomBytes(t, 96)},
		status:   sampleStatus(key.Identity()),
	}
	addr, _ := serve(t, newServer(key, newPeers("clm-1"), services))
	link := dial(t, p.dialer(t, "clm-1", 1), deviceAt(key, addr))
	ctx := context.Background()

	if link.Identity() != key.Identity() {
		t.Errorf("identity = %v", link.Identity())
	}
	req := sampleCSRRequest()
	csr, err := link.RequestCSR(ctx, req)
	if err != nil || !bytes.Equal(csr, services.csr) {
		t.Errorf("CSR of %d bytes, %v", len(csr), err)
	}
	if got, _, _ := services.got(); !reflect.DeepEqual(got, req) {
		t.Errorf("request arrived as %+v", got)
	}
	chain := [][]byte{fakeCertificate(4000), fakeCertificate(100), fakeCertificate(1200)}
	verify := enrol.VerifyRequest{Enrolment: enrol.ID{1}, Nonce: [32]byte{2}, Certificates: chain}
	response, err := link.VerifyCertificate(ctx, verify)
	if err != nil || !reflect.DeepEqual(response, services.response) {
		t.Errorf("verify: %+v, %v", response, err)
	}
	if _, got, _ := services.got(); !reflect.DeepEqual(got, verify) {
		t.Error("the chain did not arrive as it was sent")
	}
	err = link.Activate(ctx, enrol.ID{1}, [32]byte{5}, 90*time.Second)
	if _, _, within := services.got(); err != nil || within != 90*time.Second {
		t.Errorf("activate: %v, within %v", err, within)
	}
	if err := link.Confirm(ctx, enrol.ID{1}, [32]byte{5}); err != nil {
		t.Errorf("confirm: %v", err)
	}
	if err := link.Rollback(ctx, enrol.ID{1}, [32]byte{5}); err != nil {
		t.Errorf("rollback: %v", err)
	}
	got, err := link.Status(ctx)
	if err != nil || !reflect.DeepEqual(got, services.status) {
		t.Errorf("status: %+v, %v", got, err)
	}
	services.mu.Lock()
	defer services.mu.Unlock()
	for _, peer := range services.peers {
		if peer.Name != "clm-1" || peer.Role != ibc.RoleCLM {
			t.Errorf("called in the name of %v", peer)
		}
	}
}

// fakeCertificate is a DER SEQUENCE of n bytes of content.
func fakeCertificate(n int) []byte {
	out := []byte{0x30, 0x82, byte(n >> 8), byte(n)}
	if n < 256 {
		out = []byte{0x30, 0x81, byte(n)}
	}
	if n < 128 {
		out = []byte{0x30, byte(n)}
	}
	return append(out, bytes.Repeat([]byte{0xab}, n)...)
}
