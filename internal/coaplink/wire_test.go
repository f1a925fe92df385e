package coaplink

import (
	"bytes"
	"crypto/x509"
	"errors"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/smallstep/pkcs7"
	"pgregory.net/rapid"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/testpeer"
)

func drawCSRRequest(t *rapid.T) enrol.CSRRequest {
	bytesOf := func(label string, lo, hi int) []byte { return rapid.SliceOfN(rapid.Byte(), lo, hi).Draw(t, label) }
	maybe := func(label string, hi int) []byte {
		if b := bytesOf(label, 0, hi); len(b) > 0 {
			return b
		}
		return nil
	}
	r := enrol.CSRRequest{
		Enrolment: enrol.ID(bytesOf("enrolment", 16, 16)), CAHash: [32]byte(bytesOf("hash", 32, 32)),
		CA: maybe("ca", 3000), Challenge: maybe("challenge", maxChallenge),
		Enclosed: rapid.Bool().Draw(t, "enclosed"),
	}
	if rapid.Bool().Draw(t, "key") {
		r.Key = rapid.SampledFrom(fleet.KeyAlgorithms()).Draw(t, "algorithm")
	}
	if rapid.Bool().Draw(t, "time") {
		r.Time = time.Unix(rapid.Int64Range(minTime+1, maxTime).Draw(t, "seconds"), 0).UTC()
	}
	if r.Enclosed {
		for range rapid.IntRange(0, maxSubject).Draw(t, "attributes") {
			r.Subject = append(r.Subject, fleet.Attribute{
				Type:  rapid.SampledFrom(fleet.SubjectTypes()).Draw(t, "type"),
				Value: rapid.StringMatching(`[ -~]{1,64}`).Draw(t, "value"),
			})
		}
		for range rapid.IntRange(0, fleet.MaxNames).Draw(t, "names") {
			r.SANs = append(r.SANs, rapid.SampledFrom([]fleet.Name{
				{Kind: fleet.KindDNS, Value: "plc-1.plant"}, {Kind: fleet.KindIP, Value: "2001:db8::1"}, {Kind: fleet.KindURI, Value: "urn:x:y"},
			}).Draw(t, "name"))
		}
	}
	for _, u := range []string{"digitalSignature", "contentCommitment", "keyEncipherment", "dataEncipherment", "keyAgreement"} {
		if rapid.Bool().Draw(t, u) {
			r.KeyUsage = append(r.KeyUsage, u)
		}
	}
	for _, u := range []string{"serverAuth", "codeSigning", "clientAuth", "ocspSigning", "timeStamping", "emailProtection"} {
		if rapid.Bool().Draw(t, u) {
			r.ExtKeyUsage = append(r.ExtKeyUsage, u)
		}
	}
	return r
}

// TestCSRRequestSurvivesTheWire: what one side says is what the other hears.
func TestCSRRequestSurvivesTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawCSRRequest(t)
		data, err := encodeCSRRequest(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeCSRRequest(data)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("sent %+v\ngot  %+v, %v", want, got, err)
		}
	})
}

func TestStatusSurvivesTheWire(t *testing.T) {
	id := ibc.Identity{Role: ibc.RoleDevice, Name: "plc-1", Epoch: 1, Generation: 1}
	full, bare := sampleStatus(id), enrol.DeviceStatus{Identity: id, Clock: enrol.ClockPlausible, Time: time.Unix(0, 0).UTC()}
	for _, want := range []enrol.DeviceStatus{full, bare} {
		data, err := encodeStatus(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decodeStatus(data)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("sent %+v\ngot  %+v, %v", want, got, err)
		}
	}
	full.LastError = strings.Repeat("ü", 300)
	full.KeyAndCSR = -time.Second
	data, err := encodeStatus(full)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := decodeStatus(data); err != nil || got.LastError != strings.Repeat("ü", 128) || got.KeyAndCSR != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestConfirmWithinNeverBecomesFinal: a part of a second counts as a whole one.
func TestConfirmWithinNeverBecomesFinal(t *testing.T) {
	for within, want := range map[time.Duration]time.Duration{
		0: 0, 1: time.Second, time.Millisecond: time.Second, time.Second: time.Second, 1500 * time.Millisecond: 2 * time.Second,
	} {
		data, err := encodeReference(enrol.ID{}, [32]byte{}, within)
		if err != nil {
			t.Fatal(err)
		}
		if a, err := decodeReference(data); err != nil || a.within != want {
			t.Errorf("%v arrived as %v, %v", within, a.within, err)
		}
	}
	for _, within := range []time.Duration{-1, 8 * 24 * time.Hour} {
		if _, err := encodeReference(enrol.ID{}, [32]byte{}, within); err == nil {
			t.Errorf("%v was sent", within)
		}
	}
}

// TestPayloadsRefused: a valid payload of each kind, spoilt in one place.
func TestPayloadsRefused(t *testing.T) {
	type spoil map[uint64]any // nil deletes
	csr, err := encodeCSRRequest(sampleCSRRequest())
	if err != nil {
		t.Fatal(err)
	}
	verify, err := encodeVerifyRequest(enrol.VerifyRequest{Certificates: [][]byte{fakeCertificate(10)}})
	if err != nil {
		t.Fatal(err)
	}
	response, err := encodeVerifyResponse(enrol.VerifyResponse{Possession: []byte{1}, Statement: make([]byte, ibc.SignatureSize)})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := encodeReference(enrol.ID{}, [32]byte{}, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	state, err := encodeStatus(sampleStatus(ibc.Identity{Role: ibc.RoleDevice, Name: "plc-1", Epoch: 1, Generation: 1}))
	if err != nil {
		t.Fatal(err)
	}
	decoders := map[string]struct {
		data   []byte
		decode func([]byte) error
		spoils map[string]spoil
	}{
		"csr": {csr, func(b []byte) error { _, err := decodeCSRRequest(b); return err }, map[string]spoil{
			"no enrolment": {1: nil}, "short enrolment": {1: make([]byte, 15)}, "null enrolment": {1: cbor.RawMessage{0xf6}},
			"empty CA": {2: []byte{}}, "large CA": {2: make([]byte, enrol.MaxCertificate+1)}, "no hash": {3: nil},
			"unknown key": {4: 99}, "key as text": {4: "rsa-2048"}, "subject alone": {6: nil}, "names alone": {5: nil},
			"too many attributes":   {5: slicesOf(maxSubject+1, []any{3, "x"})},
			"unknown attribute":     {5: []any{[]any{4, "x"}}},
			"empty attribute":       {5: []any{[]any{3, ""}}},
			"long attribute":        {5: []any{[]any{3, strings.Repeat("x", 65)}}},
			"attribute of three":    {5: []any{[]any{3, "x", "y"}}},
			"too many names":        {6: slicesOf(fleet.MaxNames+1, []any{2, "a.b"})},
			"unknown kind of name":  {6: []any{[]any{1, "a@b"}}},
			"malformed name":        {6: []any{[]any{7, "10.0.0.256"}}},
			"unknown usage":         {7: 1 << 5},
			"unknown extended":      {8: []any{5}},
			"an extended one twice": {8: []any{1, 1}},
			"empty challenge":       {9: []byte{}}, "long challenge": {9: make([]byte, maxChallenge+1)},
			"far time": {10: uint64(maxTime + 1)}, "huge time": {10: uint64(1 << 63)},
		}},
		"verify": {verify, func(b []byte) error { _, err := decodeVerifyRequest(b); return err }, map[string]spoil{
			"no enrolment": {1: nil}, "short nonce": {2: make([]byte, 31)}, "no PKCS#7": {3: nil}, "bad PKCS#7": {3: []byte{0x30, 0}},
		}},
		"response": {response, func(b []byte) error { _, err := decodeVerifyResponse(b); return err }, map[string]spoil{
			"short hash": {1: make([]byte, 31)}, "no possession": {2: nil}, "long possession": {2: make([]byte, maxPossession+1)},
			"short statement": {3: make([]byte, 95)},
		}},
		"reference": {ref, func(b []byte) error { _, err := decodeReference(b); return err }, map[string]spoil{
			"long enrolment": {1: make([]byte, 17)}, "no hash": {2: nil}, "negative time": {3: -1}, "long time": {3: maxConfirm + 1},
		}},
		"status": {state, func(b []byte) error { _, err := decodeStatus(b); return err }, map[string]spoil{
			"long version": {1: strings.Repeat("x", maxAgentVersion+1)}, "no identity": {2: nil}, "bad identity": {2: "edgeclm/v1/dev/PLC/e1.g1"},
			"empty certificate": {3: map[int]any{}}, "long serial": {4: map[int]any{1: make([]byte, 33), 2: make([]byte, 32), 3: 0}},
			"far end": {3: map[int]any{1: []byte{1}, 2: make([]byte, 32), 3: maxTime + 1}}, "short hash": {3: map[int]any{1: []byte{1}, 2: make([]byte, 31), 3: 0}},
			"short enrolment": {5: make([]byte, 15)}, "long error": {7: strings.Repeat("x", maxDetail+1)}, "bad UTF-8": {7: cbor.RawMessage{0x61, 0xff}},
			"unknown clock": {8: 2}, "far time": {9: minTime - 1}, "short anchor": {10: []any{make([]byte, 31)}},
			"too many anchors": {10: slicesOf(maxAnchors+1, make([]byte, 32))}, "long duration": {11: uint64(1 << 63)},
		}},
	}
	for kind, d := range decoders {
		if err := d.decode(d.data); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		d.spoils["no version"] = spoil{0: nil}
		d.spoils["version 2"] = spoil{0: 2}
		d.spoils["nested deeply"] = spoil{99: cbor.RawMessage{0x81, 0x81, 0x81, 0x81, 0x80}}
		d.spoils["a tag"] = spoil{99: cbor.RawMessage{0xc1, 0x00}}
		d.spoils["a string of indefinite length"] = spoil{99: cbor.RawMessage{0x5f, 0x41, 0x00, 0xff}}
		for name, changes := range d.spoils {
			if err := d.decode(spoilt(t, d.data, changes)); !errors.Is(err, errPayload) {
				t.Errorf("%s, %s: %v", kind, name, err)
			}
		}
		if err := d.decode(spoilt(t, d.data, spoil{99: "new in a later version", 1000: []any{1}})); err != nil {
			t.Errorf("%s: a key that is not known yet: %v", kind, err)
		}
		for name, data := range map[string][]byte{
			"empty": {}, "an array": {0x80}, "truncated": d.data[:len(d.data)-1], "trailing": append(bytes.Clone(d.data), 0xf6),
			"a map of indefinite length": append(append([]byte{0xbf}, d.data[1:]...), 0xff),
			"a key twice":                append(append([]byte{d.data[0] + 1}, d.data[1:]...), 0x00, 0x01),
			"too large":                  append(bytes.Clone(d.data), make([]byte, maxBody)...),
		} {
			if err := d.decode(data); !errors.Is(err, errPayload) {
				t.Errorf("%s, %s: %v", kind, name, err)
			}
		}
	}
}

func slicesOf(n int, v any) []any {
	out := make([]any, n)
	for i := range out {
		out[i] = v
	}
	return out
}

func spoilt(t *testing.T, data []byte, changes map[uint64]any) []byte {
	t.Helper()
	var m map[uint64]cbor.RawMessage
	if err := cbor.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	for k, v := range changes {
		if v == nil {
			delete(m, k)
			continue
		}
		raw, err := cbor.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		m[k] = raw
	}
	out, err := cbor.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestCertsOnly: certificates survive in order; whatever is not exactly a
// degenerate SignedData is refused.
func TestCertsOnly(t *testing.T) {
	want := [][]byte{fakeCertificate(300), fakeCertificate(20), fakeCertificate(enrol.MaxCertificate - 4)}
	der, err := encodeCertsOnly(want)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := parseCertsOnly(der); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("parsed %d certificates, %v", len(got), err)
	}
	many := make([][]byte, enrol.MaxChain+1)
	for i := range many {
		many[i] = fakeCertificate(3)
	}
	if _, err := encodeCertsOnly(many); err == nil {
		t.Error("too many certificates were encoded")
	}
	if _, err := encodeCertsOnly(nil); err == nil {
		t.Error("no certificate was encoded")
	}
	large, err := encodeCertsOnly([][]byte{fakeCertificate(enrol.MaxCertificate - 3)})
	if err != nil {
		t.Fatal(err)
	}
	odd, err := encodeCertsOnly([][]byte{{0x04, 0x01, 0x00}})
	if err != nil {
		t.Fatal(err)
	}
	short, err := encodeCertsOnly([][]byte{fakeCertificate(3)})
	if err != nil {
		t.Fatal(err)
	}
	signer, err := pkcs7.NewSignedData(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := newPKG(t, 1).credential(t, "clm-1", 1)
	parsed, err := x509.ParseCertificate(c.certificate)
	if err != nil {
		t.Fatal(err)
	}
	if err := signer.AddSigner(parsed, c.key, pkcs7.SignerInfoConfig{}); err != nil {
		t.Fatal(err)
	}
	signer.Detach()
	signed, err := signer.Finish()
	if err != nil {
		t.Fatal(err)
	}
	flip := func(i int) []byte {
		b := bytes.Clone(short)
		b[i] ^= 1
		return b
	}
	for name, b := range map[string][]byte{
		"empty": {}, "three bytes": {0x30, 0x80, 0x00}, "indefinite length": {0x30, 0x80, 0x06, 0x00, 0x00, 0x00},
		"truncated": short[:len(short)-1], "trailing": append(bytes.Clone(short), 0), "large certificate": large, "no certificate inside": odd,
		"a signer":             signed,
		"another content type": flip(12), "another inner content type": flip(len(short) - 11),
	} {
		if got, err := parseCertsOnly(b); !errors.Is(err, errPayload) {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
}

// TestCertsOnlyElsewhere: other implementations read what we write, and we
// read what they write.
func TestCertsOnlyElsewhere(t *testing.T) {
	p := newPKG(t, 1)
	certificates := [][]byte{p.credential(t, "clm-1", 1).certificate, p.credential(t, "clm-2", 1).certificate}
	der, err := encodeCertsOnly(certificates)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := pkcs7.Parse(der)
	if err != nil || len(theirs.Certificates) != 2 || !bytes.Equal(theirs.Certificates[0].Raw, certificates[0]) {
		t.Errorf("smallstep/pkcs7: %+v, %v", theirs, err)
	}
	degenerate, err := pkcs7.DegenerateCertificate(certificates[0])
	if err != nil {
		t.Fatal(err)
	}
	if got, err := parseCertsOnly(degenerate); err != nil || len(got) != 1 || !bytes.Equal(got[0], certificates[0]) {
		t.Errorf("from smallstep/pkcs7: %v", err)
	}
	openssl := testpeer.Look(t, "openssl")
	cmd := exec.CommandContext(t.Context(), openssl, "pkcs7", "-inform", "DER", "-print_certs")
	cmd.Stdin = bytes.NewReader(der)
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "BEGIN CERTIFICATE") != 2 {
		t.Errorf("openssl: %v\n%s", err, out)
	}
	cmd = exec.CommandContext(t.Context(), openssl, "crl2pkcs7", "-nocrl", "-certfile", "/dev/stdin", "-outform", "DER")
	stored, err := p.credential(t, "clm-3", 1).MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = bytes.NewReader(stored)
	written, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := parseCertsOnly(written); err != nil || len(got) != 1 {
		t.Errorf("from openssl: %v", err)
	}
}
