package clmctl

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/renewal"
	"github.com/edgeclm/edgeclm/internal/store"
)

func fullDevice(now time.Time) fleet.Device {
	zone := time.FixedZone("CET", 3600) // whatever the clock's zone, UTC is shown
	return fleet.Device{
		Name:     "plc-0001",
		Identity: ibc.Identity{Role: ibc.RoleDevice, Name: "plc-0001", Epoch: 1, Generation: 2},
		Next:     ibc.Identity{Role: ibc.RoleDevice, Name: "plc-0001", Epoch: 1, Generation: 3},
		Address:  "192.0.2.1:5684", Asset: "PRESS 7", Labels: map[string]string{"line": "3"}, Quarantined: true,
		Certificate: &fleet.Certificate{
			Serial: "0a", Subject: "CN=plc-0001", Issuer: "CN=<ca>", NotBefore: now.Add(-time.Hour).In(zone), NotAfter: now.Add(time.Hour).In(zone),
			SHA256: [32]byte{0xab},
		},
		EnrolledAt: now.In(zone), RenewAt: now.Add(30 * time.Minute), Attempts: 2, NextAttempt: now.Add(time.Minute), LastError: "no answer",
	}
}

// The JSON of device list is a contract: names, order, null for what is absent.
func TestDeviceJSON(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)
	full := fullDevice(now)
	bare := fleet.Device{Name: "plc-0002", Identity: ibc.Identity{Role: ibc.RoleDevice, Name: "plc-0002", Epoch: 1, Generation: 1}}
	var b bytes.Buffer
	if err := clikit.Render(&b, clikit.FormatJSON, []deviceView{viewDevice(full, now), viewDevice(bare, now)}, clikit.Table{}); err != nil {
		t.Fatal(err)
	}
	golden(t, "devices.json", b.Bytes())
}

// The JSON of enrol and renew is a contract.
func TestReportJSON(t *testing.T) {
	t.Parallel()
	p := &plan{due: jobs("b", "a", "c")}
	p.skip("d", "it is paused")
	r := newReport(p, renewal.Pass{Results: []enrol.Result{
		{Device: "b", Outcome: enrol.OutcomeFailed, Err: errors.New("no\nanswer\x1b[2J")},
		{Device: "a", Outcome: enrol.OutcomeRenewed},
		{Device: "c", Outcome: enrol.OutcomePending, Err: errors.New("the CA is down")},
	}})
	var b bytes.Buffer
	if err := clikit.Render(&b, clikit.FormatJSON, r, clikit.Table{}); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.json", b.Bytes())
	b.Reset()
	if err := clikit.Render(&b, clikit.FormatJSON, newReport(&plan{}, renewal.Pass{}), clikit.Table{}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), `"devices": []`) {
		t.Errorf("no devices are not an empty array: %s", &b)
	}
}

func TestHistoryJSON(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	d := fullDevice(now)
	id := enrol.ID{1}
	h := history{
		Device: d, CommissionedAt: now, LedgerIndex: 3,
		Addresses: []store.AddressEntry{{Address: d.Address, Source: "manifest.json", Since: now}, {Source: "a.csv", Manual: true, Since: now}},
		Assets:    []store.AssetEntry{{Asset: "PRESS 7", Source: "plant.csv", Since: now}, {Source: "label", Since: now}},
		Enrolments: []*enrol.Enrolment{{
			ID: id, Device: d.Name, Identity: d.Identity, State: enrol.Completed, CA: "ca", TransactionID: "00ff",
			CreatedAt: now, UpdatedAt: now, SubmittedAt: now, IssuedAt: now,
			Steps: enrol.Steps{CSRRequest: time.Millisecond, KeyAndCSR: 2500 * time.Microsecond, Enrolment: 3 * time.Millisecond, VerifyRequest: 4 * time.Millisecond, Verification: 5 * time.Millisecond},
		}},
		Certificates: []store.Certificate{
			{
				Certificate: *d.Certificate, Device: d.Name, Enrolment: id, DER: []byte{0x30, 0}, Chain: [][]byte{{0x30, 1}}, Active: true,
				Receipt: enrol.Receipt{Identity: d.Identity, Possession: []byte{1}, Statement: []byte{2}},
				Tenures: []store.Tenure{{From: now}},
			},
			{Certificate: *d.Certificate, Device: d.Name, Enrolment: id, DER: []byte{0x30, 2}},
		},
		Deliveries: []enrol.Delivery{
			{Device: d.Name, Kind: enrol.DeliverAnchors, Version: 7, QueuedAt: now, DeliveredAt: now},
			{Device: d.Name, Kind: enrol.DeliverBundle, Version: enrol.BundleVersion(d.Next), QueuedAt: now, Tries: 2, LastError: "no answer"},
		},
		Events: []enrol.Event{
			{At: now, Device: d.Name, Kind: store.EventCommissioned, Message: "known"},
			{At: now, Device: d.Name, Enrolment: id, State: enrol.Submitted, Kind: enrol.EventRetry, Class: enrol.ClassCAUnavail, By: enrol.PartyCA, Message: "down", Took: 1500 * time.Microsecond},
		},
	}
	var b bytes.Buffer
	if err := clikit.Render(&b, clikit.FormatJSON, viewHistory(h, now), clikit.Table{}); err != nil {
		t.Fatal(err)
	}
	golden(t, "history.json", b.Bytes())
	b.Reset()
	a := &app{Streams: clikit.Streams{Out: &b}, Deps: Deps{Now: func() time.Time { return now }}}
	a.Output = clikit.FormatTable
	if err := a.renderHistory(h); err != nil {
		t.Fatal(err)
	}
	golden(t, "history.txt", b.Bytes())
}

// golden compares with a file of testdata; EDGECLM_UPDATE=1 writes it anew.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := "testdata/" + name
	if os.Getenv("EDGECLM_UPDATE") == "1" {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
	if strings.HasSuffix(name, ".json") && !json.Valid(got) {
		t.Errorf("%s is not JSON", name)
	}
}
