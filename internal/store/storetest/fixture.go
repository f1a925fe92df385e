package storetest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/store"
)

// epoch is when everything in the suite begins.
var epoch = time.Date(2031, time.May, 7, 9, 30, 15, 123456000, time.UTC)

// open opens a store and has it closed with the test.
func open[S Store](t testing.TB, place Place[S]) S {
	t.Helper()
	s := place(t)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// reopen closes a store and opens another one in the same place.
func reopen[S Store](t testing.TB, s S, place Place[S]) S {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	return open(t, place)
}

func deviceIdentity(name string, generation uint32) ibc.Identity {
	return ibc.Identity{Role: ibc.RoleDevice, Name: name, Epoch: 1, Generation: generation}
}

// row is a manifest's row with something in every field.
func row(name string, generation uint32, ledgerIndex uint64) store.Row {
	return store.Row{
		Identity:    deviceIdentity(name, generation),
		Address:     fmt.Sprintf("%s.plant.example:%d", name, 5000+ledgerIndex),
		Labels:      map[string]string{"line": fmt.Sprint(ledgerIndex), "site": "bilbao"},
		Names:       []fleet.Name{{Kind: fleet.KindCN, Value: name}, {Kind: fleet.KindURI, Value: "urn:plc:" + name}},
		LedgerIndex: ledgerIndex,
	}
}

// put commissions devices of generation 1.
func put(t testing.TB, s Store, names ...string) {
	t.Helper()
	d := store.Delivery{At: epoch, Source: "manifest.json"}
	for i, name := range names {
		d.Rows = append(d.Rows, row(name, 1, uint64(i+1)))
	}
	if _, err := s.PutDevices(context.Background(), d); err != nil {
		t.Fatalf("put devices: %v", err)
	}
}

func device(t testing.TB, s enrol.Store, name string) fleet.Device {
	t.Helper()
	d, err := s.Device(context.Background(), name)
	if err != nil {
		t.Fatalf("device %s: %v", name, err)
	}
	return d
}

func openEnrolment(t testing.TB, s enrol.Store, name string) *enrol.Enrolment {
	t.Helper()
	e, err := s.OpenEnrolment(context.Background(), name)
	if err != nil {
		t.Fatalf("open enrolment of %s: %v", name, err)
	}
	return e
}

func commit(t testing.TB, s enrol.Store, c enrol.Change) {
	t.Helper()
	if err := s.Commit(context.Background(), c); err != nil {
		t.Fatalf("commit: %v", err)
	}
}

// wantError fails unless err wraps want.
func wantError(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

// kind returns the sentinel that an error wraps.
func kind(err error) error {
	for _, sentinel := range []error{enrol.ErrConflict, enrol.ErrNotFound, enrol.ErrLeased, store.ErrInvalid, store.ErrClosed} {
		if errors.Is(err, sentinel) {
			return sentinel
		}
	}
	return err
}

// same compares by what is printed: nil and empty lists are the same to a
// store, and the message shows the difference.
func same(t testing.TB, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		t.Errorf("%s:\n got %s\nwant %s", what, g, w)
	}
}

// issuer is a CA of the suite.
type issuer struct {
	name pkix.Name
	key  *ecdsa.PrivateKey
}

func newIssuer(t testing.TB, name string) issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return issuer{pkix.Name{CommonName: name, Organization: []string{"NOT FOR PRODUCTION"}}, key}
}

// issue returns a certificate that ends so long after epoch.
func (i issuer) issue(t testing.TB, serial int64, commonName string, lifetime time.Duration) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: commonName},
		NotBefore: epoch.Truncate(time.Second), NotAfter: epoch.Truncate(time.Second).Add(lifetime),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, &x509.Certificate{Subject: i.name}, &i.key.PublicKey, i.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// serialOf is a serial number as the core writes it.
func serialOf(c *x509.Certificate) string { return enrol.Describe(c).Serial }

// requested is an enrolment that has just begun.
func requested(device string, id byte) *enrol.Enrolment {
	return &enrol.Enrolment{
		ID: enrol.ID{id, 0xe}, Device: device, Identity: deviceIdentity(device, 1), State: enrol.Requested, CA: "plant",
		CreatedAt: epoch, UpdatedAt: epoch,
	}
}

// complete returns the change that ends an enrolment with a certificate.
func complete(e *enrol.Enrolment, d fleet.Device, leaf *x509.Certificate, at time.Time) enrol.Change {
	described := enrol.Describe(leaf)
	e.State, e.Certificate, e.UpdatedAt = enrol.Completed, leaf.Raw, at
	d.Certificate, d.EnrolledAt, d.RenewAt = &described, at, at.Add(leaf.NotAfter.Sub(at)/2)
	d.Attempts, d.NextAttempt, d.LastError = 0, time.Time{}, ""
	return enrol.Change{Enrolment: e, Device: &d, Events: []enrol.Event{{
		At: at, Device: e.Device, Enrolment: e.ID, State: enrol.Completed, Kind: enrol.EventCompleted, Message: "active",
	}}}
}

// full is an enrolment with something in every field.
func full(device string, leaf *x509.Certificate, chain ...[]byte) *enrol.Enrolment {
	at := func(n int) time.Time { return epoch.Add(time.Duration(n) * time.Second) }
	return &enrol.Enrolment{
		ID: enrol.ID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, Device: device,
		Identity: deviceIdentity(device, 7), Revision: 0, State: enrol.Verified, CA: "plant",
		Key: fleet.ECDSAP384, Subject: []fleet.Attribute{{Type: "O", Value: "Ünïcödé & <Söhne>"}, {Type: "CN", Value: device}},
		SANs: []fleet.Name{{Kind: fleet.KindDNS, Value: "plc.example"}, {Kind: fleet.KindIP, Value: "192.0.2.7"}}, Enclosed: true,
		KeyUsage: []string{"digitalSignature"}, ExtKeyUsage: []string{"serverAuth", "clientAuth"}, Confirmation: 90 * time.Second,
		CSRHash: sha256.Sum256([]byte("csr")), SPKIHash: sha256.Sum256([]byte("spki")), TransactionID: "0a0b0c",
		SubmittedAt: at(1), Pending: true, IssuedAt: at(2), CADate: at(3), Certificate: leaf.Raw, Chain: chain,
		Receipt: enrol.Receipt{
			Identity: deviceIdentity(device, 7), Nonce: sha256.Sum256([]byte("nonce")), Algorithm: "ecdsa-sha256",
			Possession: []byte("possession"), Statement: []byte("statement"), ParamsID: sha256.Sum256([]byte("params")),
			Certificate: sha256.Sum256(leaf.Raw), SPKI: sha256.Sum256([]byte("spki")),
		},
		Steps: enrol.Steps{
			CSRRequest: time.Millisecond + 1, KeyAndCSR: 2*time.Millisecond + 1, Enrolment: 3*time.Millisecond + 1,
			VerifyRequest: 4*time.Millisecond + 1, Verification: 5*time.Millisecond + 1,
		},
		Rollbacks: 2, Tries: 3, NextTry: at(4), LastError: "the device is unreachable", FailedBy: enrol.PartyDevice,
		CreatedAt: at(5), UpdatedAt: at(6),
	}
}
