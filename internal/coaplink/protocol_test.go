package coaplink

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/udp/coder"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

const specification = "../../docs/protocol.md"

// update rewrites the examples of the specification.
var update = flag.Bool("update", false, "rewrite the examples in docs/protocol.md")

// zeros is a reader of zero bytes, so that the examples are the same each time.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// vectors is what the examples take from the test vectors.
type vectors struct {
	MasterSecret string `json:"master_secret_s"`
	Messages     []struct {
		Identity string `json:"identity"`
		LP       string `json:"lp_hex"`
		What     string `json:"what"`
	} `json:"labelled_messages"`
}

func loadVectors(t *testing.T) (v vectors, p pkg) {
	t.Helper()
	data, err := os.ReadFile("../ibc/testdata/ibc-v1.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	secret, err := hex.DecodeString(v.MasterSecret)
	if err != nil {
		t.Fatal(err)
	}
	m, err := ibc.NewMasterSecret(1, secret)
	if err != nil {
		t.Fatal(err)
	}
	return v, pkg{m}
}

// TestProtocolExamples: the examples in docs/protocol.md are what the code
// sends.
func TestProtocolExamples(t *testing.T) {
	text, err := os.ReadFile(specification)
	if err != nil {
		t.Fatal(err)
	}
	examples := protocolExamples(t)
	block := regexp.MustCompile("(?s)<!-- example: ([a-z0-9-]+) -->\n```text\n(.*?)```\n")
	seen := map[string]bool{}
	out := block.ReplaceAllStringFunc(string(text), func(found string) string {
		parts := block.FindStringSubmatch(found)
		name, have := parts[1], parts[2]
		seen[name] = true
		if name == "binding-certificate" {
			if *update {
				have = dump(exampleCertificate(t))
			}
			checkCertificate(t, have)
			examples["binding-certificate-asn1"] = asn1Listing(t, unhexListing(t, have))
			return fmt.Sprintf("<!-- example: %s -->\n```text\n%s```\n", name, have)
		}
		want, ok := examples[name]
		if !ok {
			t.Errorf("nothing makes the example %s", name)
			return found
		}
		if have != want && !*update {
			t.Errorf("example %s is\n%s\nbut the code makes\n%s", name, have, want)
		}
		return fmt.Sprintf("<!-- example: %s -->\n```text\n%s```\n", name, want)
	})
	for name := range examples {
		if !seen[name] {
			t.Errorf("the specification lacks the example %s", name)
		}
	}
	if *update {
		if err := os.WriteFile(specification, []byte(out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// exampleCertificate is a CLM's; its own signature is different each time, so
// the specification keeps one.
func exampleCertificate(t *testing.T) []byte {
	t.Helper()
	_, p := loadVectors(t)
	return p.credential(t, "clm-1.plant", 1).certificate
}

func checkCertificate(t *testing.T, listing string) {
	t.Helper()
	der := unhexListing(t, listing)
	_, p := loadVectors(t)
	got, err := parsePresented([][]byte{der})
	if err != nil {
		t.Fatalf("the example certificate: %v", err)
	}
	if err := got.verify(p.Params()); err != nil || got.binding.Identity.Name != "clm-1.plant" {
		t.Errorf("the example certificate: %v, %v", got.binding.Identity, err)
	}
}

// protocolExamples makes every example from the code.
func protocolExamples(t *testing.T) map[string]string {
	t.Helper()
	v, p := loadVectors(t)
	device := p.key(t, ibc.RoleDevice, "plc-0007.line3.plant", 1)
	id := device.Identity()
	out := map[string]string{}

	params, public := p.Params().ID(), id.PublicKey()
	out["identity"] = fmt.Sprintf("identity   %s\nQ          %x\nparams_id  %x\n", id, public, params)

	for what, name := range map[string]string{"dtls-binding, ": "binding-message", "possession": "possession-message", "statement": "statement-message"} {
		for _, m := range v.Messages {
			if strings.HasPrefix(m.What, what) {
				raw, err := hex.DecodeString(m.LP)
				if err != nil {
					t.Fatal(err)
				}
				out[name] = lpListing(raw)
			}
		}
	}
	b, err := NewBinding(device, zeros{}, exampleSPKI(t, v), bytes.Repeat([]byte{0xa5}, ContextSize))
	if err != nil {
		t.Fatal(err)
	}
	der, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	out["binding"] = dump(der)
	signatureExamples(t, device, v, out)
	out["epoch"] = epochExample(t, p)
	payloadExamples(t, device, out)
	messageExamples(t, out)
	exchangeExamples(t, out)
	return out
}

// epochExample is the statement by which the PKG of the vectors goes over to a
// second epoch, whose master secret is 32 bytes 02.
func epochExample(t *testing.T, p pkg) string {
	t.Helper()
	later, err := ibc.NewMasterSecret(2, bytes.Repeat([]byte{2}, ibc.ScalarSize))
	if err != nil {
		t.Fatal(err)
	}
	document, err := ibc.EpochDocument(later.Params())
	if err != nil {
		t.Fatal(err)
	}
	step, err := p.Succeed(later.Params())
	if err != nil {
		t.Fatal(err)
	}
	return lpListing(document) + "statement\n" + dump(step.Statement)
}

// exampleSPKI is the hash in the binding message of the vectors.
func exampleSPKI(t *testing.T, v vectors) [32]byte {
	t.Helper()
	raw, err := hex.DecodeString(v.Messages[0].LP)
	if err != nil {
		t.Fatal(err)
	}
	context := 2 + ContextSize
	return [32]byte(raw[len(raw)-context-32 : len(raw)-context])
}

func payloadExamples(t *testing.T, device *ibc.PrivateKey, out map[string]string) {
	t.Helper()
	enrolment := enrol.ID(bytes.Repeat([]byte{1}, enrol.IDSize))
	nonce := [32]byte(bytes.Repeat([]byte{2}, 32))
	certificate := [32]byte(bytes.Repeat([]byte{0xce}, 32))
	statement, err := enrol.StatementMessage(device.Identity(), enrolment, [32]byte(bytes.Repeat([]byte{0x5b}, 32)), certificate)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := device.Sign(zeros{}, statement)
	if err != nil {
		t.Fatal(err)
	}
	placeholder := [][]byte{{0x30, 0x03, 0x02, 0x01, 0x05}}
	add := func(name string, fields map[int]string, data []byte, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		out[name] = cborListing(t, data, fields)
	}
	reference := map[int]string{0: "version", 1: "enrolment ID", 2: "certificate, SHA-256", 3: "confirm_within"}

	data, err := encodeCSRRequest(enrol.CSRRequest{
		Enrolment: enrolment, CAHash: [32]byte(bytes.Repeat([]byte{0xca}, 32)), Key: fleet.ECDSAP256, Enclosed: true,
		Subject:     []fleet.Attribute{{Type: "O", Value: "Plant"}, {Type: "CN", Value: "plc-0007"}},
		SANs:        []fleet.Name{{Kind: fleet.KindDNS, Value: "plc-0007.line3.plant"}, {Kind: fleet.KindIP, Value: "10.3.0.7"}},
		KeyUsage:    []string{"digitalSignature", "keyAgreement"},
		ExtKeyUsage: []string{"serverAuth", "clientAuth"},
		Challenge:   []byte("sesame"), Time: time.Unix(1_800_000_000, 0),
	})
	add("csr-request", map[int]string{
		0: "version", 1: "enrolment ID", 2: "CA", 3: "CA, SHA-256", 4: "key: ecdsa-p256", 5: "subject", 6: "alternative names",
		7: "key usage: digitalSignature, keyAgreement", 8: "extended key usage", 9: "challenge", 10: "time",
	}, data, err)
	p7, err := encodeCertsOnly(placeholder)
	if err != nil {
		t.Fatal(err)
	}
	out["certs-only"] = dump(p7)
	data, err = encodeVerifyRequest(enrol.VerifyRequest{Enrolment: enrolment, Nonce: nonce, Certificates: placeholder})
	add("verify-request", map[int]string{0: "version", 1: "enrolment ID", 2: "nonce", 3: "PKCS#7"}, data, err)
	data, err = encodeVerifyResponse(enrol.VerifyResponse{Certificate: certificate, Possession: bytes.Repeat([]byte{0x90}, 70), Statement: signature})
	add("verify-response", map[int]string{0: "version", 1: "certificate, SHA-256", 2: "possession (placeholder)", 3: "statement"}, data, err)
	data, err = encodeReference(enrolment, certificate, 5*time.Minute)
	add("activate", reference, data, err)
	data, err = encodeStatus(enrol.DeviceStatus{
		Version: "1.0.0", Identity: device.Identity(), Clock: enrol.ClockPlausible, Time: time.Unix(1_800_000_000, 0),
		Active:    &enrol.DeviceCertificate{Serial: "1f00a3", SHA256: certificate, NotAfter: time.Unix(1_800_086_400, 0)},
		Enrolment: &enrolment, Unconfirmed: true, Anchors: [][32]byte{[32]byte(bytes.Repeat([]byte{0xca}, 32))},
		KeyAndCSR: 4200 * time.Microsecond, Verification: 3100 * time.Microsecond,
	})
	add("status", map[int]string{
		0: "version", 1: "agent", 2: "identity", 3: "active certificate", 4: "staged certificate", 5: "enrolment ID", 6: "unconfirmed",
		7: "last error", 8: "clock: plausible", 9: "time", 10: "trust anchors", 11: "microseconds, key and CSR", 12: "microseconds, verification",
	}, data, err)
	data, err = encodeProblem(&enrol.DeviceError{Problem: enrol.ProblemUnknownCA, Detail: "the CA certificate is not known here"})
	add("problem", map[int]string{-1: "title", -2: "detail"}, data, err)
}

func messageExamples(t *testing.T, out map[string]string) {
	t.Helper()
	encode := func(change func(*pool.Message)) []byte {
		m := pool.NewMessage(context.Background())
		m.SetType(message.Confirmable)
		m.SetMessageID(0x1234)
		m.SetToken(message.Token{0x5a})
		change(m)
		data, err := m.MarshalWithEncoder(coder.DefaultCoder)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	out["coap-status"] = dump(encode(func(m *pool.Message) {
		m.SetCode(codes.GET)
		m.MustSetPath(pathStatus)
		m.SetAccept(formatCBOR)
	}))
	head := encode(func(m *pool.Message) {
		m.SetCode(codes.POST)
		m.MustSetPath(pathVerify)
		m.SetAccept(formatCBOR)
		m.SetContentFormat(formatCBOR)
		m.AddOptionBytes(optionRequestTag, bytes.Repeat([]byte{0x77}, 8))
		m.AddOptionBytes(message.Block1, uintOption(message.Block1, block{num: 1, more: true, szx: maxSZX}.value()).Value)
		m.SetBody(bytes.NewReader([]byte{0}))
	})
	out["coap-block"] = "the second of three blocks of a request, without its 1024 bytes:\n" + dump(head[:len(head)-1])
}

// dump writes bytes in hexadecimal, 32 a line.
func dump(b []byte) string {
	var out strings.Builder
	for len(b) > 32 {
		fmt.Fprintf(&out, "%x\n", b[:32])
		b = b[32:]
	}
	fmt.Fprintf(&out, "%x\n", b)
	return out.String()
}

// lpListing writes an LP with one element a line, and text beside it.
func lpListing(b []byte) string {
	var out strings.Builder
	for len(b) >= 2 {
		n := int(b[0])<<8 | int(b[1])
		element := b[2 : 2+n]
		fmt.Fprintf(&out, "%x  %s\n", b[:2], text(element))
		b = b[2+n:]
	}
	return out.String()
}

// text shows printable bytes as text, others in hexadecimal.
func text(b []byte) string {
	for _, c := range b {
		if c < ' ' || c > '~' {
			return hex.EncodeToString(b)
		}
	}
	return fmt.Sprintf("%q", b)
}

// cborListing writes a map with one pair a line.
func cborListing(t *testing.T, data []byte, fields map[int]string) string {
	t.Helper()
	var out strings.Builder
	if data[0] < 0xa0 || data[0] > 0xb7 {
		t.Fatalf("%x is not a small map", data)
	}
	whole, err := cbor.Diagnose(data)
	if err != nil {
		t.Fatal(err)
	}
	out.WriteString(fold(whole))
	fmt.Fprintf(&out, "%-10x # map of %d\n", data[:1], data[0]-0xa0)
	for rest := data[1:]; len(rest) > 0; {
		var key int
		var value cbor.RawMessage
		tail, err := cbor.UnmarshalFirst(rest, &key)
		if err != nil {
			t.Fatal(err)
		}
		rawKey := rest[:len(rest)-len(tail)]
		if rest, err = cbor.UnmarshalFirst(tail, &value); err != nil {
			t.Fatal(err)
		}
		note, ok := fields[key]
		if !ok {
			t.Fatalf("no name for key %d", key)
		}
		diagnosis, err := cbor.Diagnose(value)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(diagnosis, "h'") {
			note += ": " + diagnosis
		}
		fmt.Fprintf(&out, "   %-7x # %d %s\n", rawKey, key, note)
		for _, line := range strings.Split(strings.TrimSuffix(dump(value), "\n"), "\n") {
			fmt.Fprintf(&out, "      %s\n", line)
		}
	}
	return out.String()
}
