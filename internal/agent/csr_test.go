package agent_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/testpeer"
)

// lab makes RSA-1024 keys too.
func lab(c *agent.Config) { c.LabAllowRSA1024 = true }

// enclosed asks for names, usages and a challenge.
func (d *device) enclosed(n byte) enrol.CSRRequest {
	req := d.request(n)
	req.Enclosed = true
	req.Subject = []fleet.Attribute{{Type: "C", Value: "ES"}, {Type: "O", Value: "Fábrica"}, {Type: "CN", Value: "plc-1"}}
	req.SANs = []fleet.Name{{Kind: fleet.KindIP, Value: "192.0.2.7"}, {Kind: fleet.KindURI, Value: "urn:plant:plc-1"}}
	req.KeyUsage = []string{"digitalSignature", "keyAgreement"}
	req.ExtKeyUsage = []string{"clientAuth", "serverAuth"}
	req.Challenge = []byte("s3same, öffne dich")
	return req
}

// asked is the enrolment that a request belongs to, for enrol.CheckCSR.
func asked(req enrol.CSRRequest) *enrol.Enrolment {
	e := &enrol.Enrolment{Key: req.Key, Subject: req.Subject, SANs: req.SANs}
	if !req.Enclosed {
		e.Subject = []fleet.Attribute{{Type: "CN", Value: "plc-1"}}
		e.SANs = []fleet.Name{
			{Kind: fleet.KindDNS, Value: "plc-1.plant"}, {Kind: fleet.KindIP, Value: "192.0.2.7"},
			{Kind: fleet.KindURI, Value: "urn:plant:plc-1"},
		}
	}
	return e
}

// Every kind of key gives a CSR that the CLM and OpenSSL accept, with the
// names, usages and challenge that were asked for.
func TestCSRContent(t *testing.T) {
	openssl := testpeer.Look(t, "openssl")
	d := newDevice(t, lab)
	for i, algorithm := range fleet.KeyAlgorithms() {
		t.Run(string(algorithm), func(t *testing.T) {
			req := d.enclosed(byte(i + 1))
			req.Key = algorithm
			der := must[[]byte](t)(d.agent.CSR(t.Context(), d.peer, req))
			if _, err := enrol.CheckCSR(der, asked(req)); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "csr.der")
			if err := os.WriteFile(file, der, 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(openssl, "req", "-inform", "DER", "-in", file, "-verify", "-noout", "-text", "-nameopt", "utf8").CombinedOutput()
			if err != nil {
				t.Fatalf("openssl req: %v\n%s", err, out)
			}
			for _, want := range []string{
				"verify OK", "C=ES", "O=Fábrica", "CN=plc-1", "Digital Signature, Key Agreement",
				"TLS Web Client Authentication, TLS Web Server Authentication",
				"IP Address:192.0.2.7", "URI:urn:plant:plc-1", "challengePassword",
			} {
				if !strings.Contains(strings.ReplaceAll(string(out), " = ", "="), want) {
					t.Errorf("openssl req does not say %q:\n%s", want, out)
				}
			}
			// openssl escapes what is not ASCII; the attribute is a UTF8String.
			if !bytes.Contains(der, append([]byte{12, byte(len(req.Challenge))}, req.Challenge...)) {
				t.Error("the challenge is not in the CSR")
			}
		})
	}
}

func TestCSRDefaults(t *testing.T) {
	d := newDevice(t, func(c *agent.Config) { c.Key = fleet.ECDSAP384 })
	req := d.request(1)
	der := d.csr(1)
	csr := must[*x509.CertificateRequest](t)(enrol.CheckCSR(der, asked(req)))
	if k := must[fleet.KeyAlgorithm](t)(enrol.PublicKeyAlgorithm(csr.PublicKey)); k != fleet.ECDSAP384 {
		t.Errorf("the key is %s, the agent's choice is %s", k, fleet.ECDSAP384)
	}
	req = d.request(2)
	req.Challenge = []byte("printable")
	der = must[[]byte](t)(d.agent.CSR(t.Context(), d.peer, req))
	if !bytes.Contains(der, append([]byte{19, 9}, "printable"...)) {
		t.Error("the challenge is not a PrintableString in the CSR")
	}
	if _, err := enrol.CheckCSR(der, asked(req)); err != nil {
		t.Error(err)
	}
}

func TestCSRRefusals(t *testing.T) {
	d := newDevice(t)
	name := func(kind fleet.NameKind, value string) []fleet.Name { return []fleet.Name{{Kind: kind, Value: value}} }
	subject := func(kind, value string) func(*enrol.CSRRequest) {
		return func(r *enrol.CSRRequest) { r.Subject = append(r.Subject, fleet.Attribute{Type: kind, Value: value}) }
	}
	for what, c := range map[string]struct {
		change  func(*enrol.CSRRequest)
		problem enrol.Problem
	}{
		"other common name":   {func(r *enrol.CSRRequest) { r.Subject[2].Value = "plc-2" }, enrol.ProblemForbidden},
		"other DNS name":      {func(r *enrol.CSRRequest) { r.SANs = name(fleet.KindDNS, "plc-2.plant") }, enrol.ProblemForbidden},
		"common name as DNS":  {func(r *enrol.CSRRequest) { r.SANs = name(fleet.KindDNS, "plc-1") }, enrol.ProblemForbidden},
		"wildcard":            {func(r *enrol.CSRRequest) { r.SANs = name(fleet.KindDNS, "*.plant") }, enrol.ProblemBadRequest},
		"other address":       {func(r *enrol.CSRRequest) { r.SANs = name(fleet.KindIP, "192.0.2.8") }, enrol.ProblemForbidden},
		"CN among SANs":       {func(r *enrol.CSRRequest) { r.SANs = name(fleet.KindCN, "plc-1") }, enrol.ProblemBadRequest},
		"SAN twice":           {func(r *enrol.CSRRequest) { r.SANs = append(r.SANs, r.SANs[0]) }, enrol.ProblemBadRequest},
		"two common names":    {subject("CN", "plc-1"), enrol.ProblemBadRequest},
		"unknown attribute":   {subject("SERIALNUMBER", "1"), enrol.ProblemBadRequest},
		"empty attribute":     {subject("OU", ""), enrol.ProblemBadRequest},
		"control character":   {subject("OU", "a\nb"), enrol.ProblemBadRequest},
		"not UTF-8":           {subject("OU", "\xff"), enrol.ProblemBadRequest},
		"long attribute":      {subject("OU", strings.Repeat("x", 65)), enrol.ProblemBadRequest},
		"long country":        {subject("C", "ESP"), enrol.ProblemBadRequest},
		"nobody":              {func(r *enrol.CSRRequest) { r.Subject, r.SANs = r.Subject[:2], nil }, enrol.ProblemBadRequest},
		"names not enclosed":  {func(r *enrol.CSRRequest) { r.Enclosed = false }, enrol.ProblemBadRequest},
		"unknown key":         {func(r *enrol.CSRRequest) { r.Key = "ed25519" }, enrol.ProblemBadRequest},
		"laboratory key":      {func(r *enrol.CSRRequest) { r.Key = fleet.RSA1024 }, enrol.ProblemForbidden},
		"unknown usage":       {func(r *enrol.CSRRequest) { r.KeyUsage = []string{"keyCertSign"} }, enrol.ProblemBadRequest},
		"usage twice":         {func(r *enrol.CSRRequest) { r.ExtKeyUsage = []string{"clientAuth", "clientAuth"} }, enrol.ProblemBadRequest},
		"long challenge":      {func(r *enrol.CSRRequest) { r.Challenge = bytes.Repeat([]byte("x"), 256) }, enrol.ProblemBadRequest},
		"binary challenge":    {func(r *enrol.CSRRequest) { r.Challenge = []byte{0xff, 0} }, enrol.ProblemBadRequest},
		"CA of another hash":  {func(r *enrol.CSRRequest) { r.CAHash[0] ^= 1 }, enrol.ProblemBadRequest},
		"malformed CA":        {func(r *enrol.CSRRequest) { r.CA = []byte("x"); r.CAHash = sha256.Sum256(r.CA) }, enrol.ProblemBadRequest},
		"unknown CA":          {func(r *enrol.CSRRequest) { r.CA = nil }, enrol.ProblemUnknownCA},
		"too many attributes": {func(r *enrol.CSRRequest) { r.Subject = slices.Repeat(r.Subject[:1], 17) }, enrol.ProblemBadRequest},
	} {
		t.Run(what, func(t *testing.T) {
			req := d.enclosed(1)
			c.change(&req)
			_, err := d.agent.CSR(t.Context(), d.peer, req)
			wantRefusal(t, err, c.problem)
		})
	}
	if s := d.status(); s.Enrolment != nil {
		t.Errorf("a refused request opened the slot for %v", s.Enrolment)
	}
}

// The same request gives the same CSR, also after a restart; the CLM's time
// and the form in which it names the CA are no part of it. Everything else is.
func TestCSRIdempotent(t *testing.T) {
	d := newDevice(t)
	req := d.enclosed(1)
	first := must[[]byte](t)(d.agent.CSR(t.Context(), d.peer, req))
	again := req
	again.Time, again.CA = date(2099), nil
	for range 2 {
		if got := must[[]byte](t)(d.agent.CSR(t.Context(), d.peer, again)); !bytes.Equal(got, first) {
			t.Fatal("the same request gave another CSR")
		}
		d.restart()
	}
	for what, change := range map[string]func(*enrol.CSRRequest){
		"challenge": func(r *enrol.CSRRequest) { r.Challenge = []byte("another") },
		"CA":        func(r *enrol.CSRRequest) { r.CA = newAuthority(t, "other").root.Raw; r.CAHash = sha256.Sum256(r.CA) },
		"key":       func(r *enrol.CSRRequest) { r.Key = fleet.ECDSAP384 },
		"names":     func(r *enrol.CSRRequest) { r.SANs = r.SANs[:1] },
		"usage":     func(r *enrol.CSRRequest) { r.KeyUsage = nil },
		"enclosed":  func(r *enrol.CSRRequest) { r.Enclosed, r.Subject, r.SANs = false, nil, nil },
	} {
		other := d.enclosed(1)
		change(&other)
		_, err := d.agent.CSR(t.Context(), d.peer, other)
		t.Log(what, err)
		wantRefusal(t, err, enrol.ProblemConflict)
	}
	if other := d.csr(2); bytes.Equal(other, first) {
		t.Error("another enrolment got the same CSR")
	}
	_, err := d.verify(1, d.ca.issue(t, first))
	wantRefusal(t, err, enrol.ProblemUnknown)
}

// The pending slot belongs to the CLM that opened it, until the activation or
// an hour of uptime without a word from it.
func TestSlotOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t)
		other := ibc.Identity{Role: ibc.RoleCLM, Name: "clm-2", Epoch: 1, Generation: 3}
		refused := func(n byte) {
			t.Helper()
			_, err := d.agent.CSR(t.Context(), other, d.request(n))
			if r := wantRefusal(t, err, enrol.ProblemConflict); !strings.Contains(r.Detail, "clm-1") {
				t.Errorf("the refusal %q does not name the owner", r.Detail)
			}
		}
		csr := d.csr(1)
		refused(2)
		refused(1) // even with the same request
		time.Sleep(59 * time.Minute)
		d.csr(1) // a word
		time.Sleep(59 * time.Minute)
		refused(2)
		d.restart() // begins the hour anew
		time.Sleep(59 * time.Minute)
		refused(2)
		_, err := d.agent.Verify(t.Context(), other, enrol.VerifyRequest{Enrolment: id(1), Certificates: d.ca.issue(t, csr)})
		wantRefusal(t, err, enrol.ProblemConflict)
		time.Sleep(time.Minute)
		must[[]byte](t)(d.agent.CSR(t.Context(), other, d.request(1)))
		_, err = d.agent.CSR(t.Context(), d.peer, d.request(1))
		wantRefusal(t, err, enrol.ProblemConflict)
		time.Sleep(time.Hour)
		d.enrol(1)
		// The activation frees the slot.
		must[[]byte](t)(d.agent.CSR(t.Context(), other, d.request(3)))
	})
}

// A CLM's new enrolment supersedes its own, staged or not, and leaves nothing
// of it behind.
func TestSuperseded(t *testing.T) {
	d := newDevice(t)
	active := d.enrol(1)
	sha := d.stage(2)
	d.csr(3)
	wantRefusal(t, d.activate(2, sha, 0), enrol.ProblemUnknown)
	d.wantActive(active)
	if _, err := os.Stat(filepath.Join(d.cfg.Dir, "pairs", id(2).String())); !os.IsNotExist(err) {
		t.Error("the superseded pair is still there")
	}
	// An ID of the past opens no slot.
	_, err := d.agent.CSR(t.Context(), d.peer, d.request(1))
	wantRefusal(t, err, enrol.ProblemUnknown)
}

// A CA by its hash alone: the device knows that of its certificate.
func TestKnownCA(t *testing.T) {
	d := newDevice(t)
	d.enrol(1)
	d.restart()
	req := d.request(2)
	req.CA = nil
	must[[]byte](t)(d.agent.CSR(t.Context(), d.peer, req))
}

// With a trust anchor, a CA that cannot lead to it is refused before anybody
// issues a certificate in vain.
func TestForeignCARefusedEarly(t *testing.T) {
	d := newDevice(t)
	d.enrol(1)
	d.ca = newAuthority(t, "foreign")
	_, err := d.agent.CSR(t.Context(), d.peer, d.request(2))
	wantRefusal(t, err, enrol.ProblemForbidden)
}

func TestRequestCancelled(t *testing.T) {
	d := newDevice(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	release := make(chan struct{})
	d.cfg.Reload = func(context.Context, agent.Paths) error { <-release; return nil }
	d.restart()
	sha := d.stage(1)
	done := make(chan error, 1)
	go func() { done <- d.activate(1, sha, 0) }()
	for d.status().Active == nil { // the status does not wait for the hook
		time.Sleep(time.Millisecond)
	}
	_, err := d.agent.CSR(ctx, d.peer, d.request(2))
	wantRefusal(t, err, enrol.ProblemUnavailable)
	close(release)
	d.ok(<-done)
}

// FuzzCSRRequest: no request makes the agent panic, and a CSR that it signs
// says what was asked for, and names nobody whom the bundle does not allow.
func FuzzCSRRequest(f *testing.F) {
	d := newDevice(f, inMemory(f))
	f.Add("CN", "plc-1", "dns", "plc-1.plant", "digitalSignature", []byte("challenge"))
	f.Add("O", "Fábrica", "ip", "192.0.2.7", "", []byte(nil))
	f.Add("C", "ES", "uri", "urn:plant:plc-1", "keyAgreement", []byte("ö*&"))
	f.Add("OU", "*", "uri", "urn:plant:plc-1", "keyCertSign", []byte{0})
	f.Add("CN", "plc-2", "dns", "*.plant", "clientAuth", []byte("\xff"))
	n := byte(0)
	f.Fuzz(func(t *testing.T, kind, value, sanKind, san, usage string, challenge []byte) {
		n++
		req := d.request(n)
		req.Enclosed, req.Challenge = true, challenge
		req.Subject = []fleet.Attribute{{Type: kind, Value: value}}
		req.SANs = []fleet.Name{{Kind: fleet.NameKind(sanKind), Value: san}}
		if usage != "" {
			req.KeyUsage = []string{usage}
		}
		der, err := d.agent.CSR(t.Context(), d.peer, req)
		if err != nil {
			return
		}
		csr, err := enrol.CheckCSR(der, asked(req))
		if err != nil {
			t.Fatal(err)
		}
		if cn := csr.Subject.CommonName; cn != "" && cn != "plc-1" {
			t.Fatalf("it signed for %q", cn)
		}
	})
}
