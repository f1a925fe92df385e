package devagent

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"math/big"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/agent"
	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/cli/clikit"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// run runs the program and decodes its JSON result into v, unless that is nil.
func run(t *testing.T, v any, args ...string) (code int, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Main(args, clikit.Streams{In: &bytes.Buffer{}, Out: &out, Err: &errs, Getenv: func(name string) string {
		if name == "PATH" {
			return "/bin:/usr/bin"
		}
		return ""
	}})
	if v == nil || out.Len() == 0 {
		return code, errs.String()
	}
	if err := json.Unmarshal(out.Bytes(), v); err != nil {
		t.Fatalf("%v: %s", err, &out)
	}
	return code, errs.String()
}

// device is a provisioned device with a CA of its own.
type device struct {
	t        *testing.T
	dir      string
	id       ibc.Identity
	paramsID string
	notAfter time.Time // of its certificates

	agent *agent.Agent // nil: closed
	stop  func()
	ca    *x509.Certificate
	caKey *ecdsa.PrivateKey
}

func newDevice(t *testing.T) *device {
	t.Helper()
	d := &device{t: t, dir: filepath.Join(t.TempDir(), "agent"), notAfter: time.Now().Add(time.Hour).UTC().Truncate(time.Second)}
	master, err := ibc.Setup(rand.Reader, 1)
	d.must(err)
	paramsID := master.Params().ID()
	d.paramsID = hex.EncodeToString(paramsID[:])
	d.id = ibc.Identity{Role: ibc.RoleDevice, Name: "plc-1", Epoch: 1, Generation: 1}
	key, err := master.Extract(d.id)
	d.must(err)
	_, err = agent.Provision(d.dir, nil, &bundle.Bundle{
		Identity: d.id, Params: master.Params(), Key: key, Peers: []bundle.Peer{{Name: "clm-1", Epoch: 1, Generation: 1}},
		Names: fleet.DefaultNames("plc-1"),
	})
	d.must(err)
	d.caKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	d.must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now(), NotAfter: d.notAfter,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &d.caKey.PublicKey, d.caKey)
	d.must(err)
	d.ca, err = x509.ParseCertificate(der)
	d.must(err)
	d.agent, err = agent.Open(agent.Config{Dir: d.dir})
	d.must(err)
	t.Cleanup(d.close)
	return d
}

func (d *device) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// serve opens the agent as serve does, without the network.
func (d *device) serve() {
	d.t.Helper()
	a := &app{Deps: Deps{Now: time.Now, Random: rand.Reader}}
	a.Getenv = func(string) string { return "" }
	c, err := parse(d.t, d.dir, nil)
	d.must(err)
	log := slog.New(slog.DiscardHandler)
	cfg, err := a.agentConfig(c, log)
	d.must(err)
	d.agent, err = agent.Open(cfg)
	d.must(err)
	d.stop = a.serveControl(context.Background(), d.dir, d.agent, log)
}

func (d *device) close() {
	if d.stop != nil {
		d.stop()
	}
	if d.agent != nil {
		d.must(d.agent.Close())
	}
	d.agent, d.stop = nil, nil
}

func (d *device) peer() ibc.Identity {
	return ibc.Identity{Role: ibc.RoleCLM, Name: "clm-1", Epoch: 1, Generation: 1}
}

// stage brings enrolment n to its verified certificate, whose serial number is
// 0x100 + n, and returns its SHA-256 in hex.
func (d *device) stage(n byte) string {
	d.t.Helper()
	csr, err := d.agent.CSR(d.t.Context(), d.peer(), enrol.CSRRequest{Enrolment: enrol.ID{n}, CA: d.ca.Raw, CAHash: sha256.Sum256(d.ca.Raw)})
	d.must(err)
	parsed, err := enrol.ParseCSR(csr)
	d.must(err)
	leaf, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(0x100 + int64(n)), Subject: parsed.Subject, DNSNames: parsed.DNSNames,
		NotBefore: time.Now(), NotAfter: d.notAfter,
	}, d.ca, parsed.PublicKey, d.caKey)
	d.must(err)
	v, err := d.agent.Verify(d.t.Context(), d.peer(), enrol.VerifyRequest{Enrolment: enrol.ID{n}, Certificates: [][]byte{leaf}})
	d.must(err)
	return hex.EncodeToString(v.Certificate[:])
}

// activate makes it the active one, for good.
func (d *device) activate(n byte) string {
	d.t.Helper()
	text := d.stage(n)
	sum, err := hex.DecodeString(text)
	d.must(err)
	d.must(d.agent.Activate(d.t.Context(), d.peer(), enrol.ID{n}, [32]byte(sum), 0))
	return text
}
