package testpeer

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	_ "embed" // the server
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/labpeer"
)

//go:embed mailserver.py
var mailServer []byte

// MailServer is an SMTP server on loopback that keeps what it is sent. It has
// no mailbox for nobody@, and none just now for later@.
type MailServer struct {
	Address string // host:port
	CA      string // file of the certificate that it is to be trusted by; "" without TLS

	t   testing.TB
	dir string
}

// MailOptions is how a mail server wants to be spoken to.
type MailOptions struct {
	TLS                string // starttls, tls or none, as in notify.smtp
	Username, Password string // "": it asks for none
}

// Mail is a message that a server has accepted.
type Mail struct {
	From          string   `json:"from"`
	To            []string `json:"to"`
	Data          string   `json:"data"`
	Authenticated bool     `json:"authenticated"`
	TLS           bool     `json:"tls"`
}

// StartMailServer starts a mail server, of Debian's python3-aiosmtpd, for the
// time of the test. Without it the test is skipped, see Look.
func StartMailServer(t testing.TB, o MailOptions) *MailServer {
	t.Helper()
	python := interpreter(t, Look(t, "aiosmtpd"))
	m := &MailServer{t: t, dir: t.TempDir()}
	config, err := json.Marshal(map[string]string{"tls": o.TLS, "username": o.Username, "password": o.Password})
	if err != nil {
		t.Fatal(err)
	}
	m.write("config.json", config)
	m.write("server.py", mailServer)
	if o.TLS != "none" {
		m.certify()
	}
	log, err := os.Create(filepath.Join(m.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }() // the process has its own
	process, err := labpeer.StartProcess(context.WithoutCancel(t.Context()), python, []string{"-I", filepath.Join(m.dir, "server.py"), m.dir}, nil, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		process.Stop()
		if said, err := os.ReadFile(log.Name()); err == nil && t.Failed() && len(said) > 0 {
			t.Logf("log of aiosmtpd:\n%s", said)
		}
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		port, err := os.ReadFile(filepath.Join(m.dir, "port"))
		if err == nil {
			m.Address = net.JoinHostPort("127.0.0.1", string(port))
			return m
		}
		select {
		case <-process.Done():
			t.Fatalf("aiosmtpd ended: %v", process.Err())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("aiosmtpd does not listen")
		}
	}
}

// interpreter is the Python that a program of it names, which has its modules.
func interpreter(t testing.TB, program string) string {
	t.Helper()
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	python := strings.TrimSpace(strings.TrimPrefix(first, "#!"))
	if !filepath.IsAbs(python) || strings.Contains(python, " ") {
		t.Fatalf("%s begins with %q", program, first)
	}
	return python
}

// Received returns the messages that the server has accepted, in order.
func (m *MailServer) Received() []Mail {
	m.t.Helper()
	data, err := os.ReadFile(filepath.Join(m.dir, "messages"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.t.Fatal(err)
	}
	var out []Mail
	for line := range bytes.Lines(data) {
		var mail Mail
		if err := json.Unmarshal(line, &mail); err != nil {
			m.t.Fatal(err)
		}
		out = append(out, mail)
	}
	return out
}

func (m *MailServer) write(name string, data []byte) {
	m.t.Helper()
	if err := os.WriteFile(filepath.Join(m.dir, name), data, 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// certify makes a certificate for the server that is its own issuer.
func (m *MailServer) certify() {
	m.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		m.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		m.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		m.t.Fatal(err)
	}
	m.write("cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}))
	m.write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	m.CA = filepath.Join(m.dir, "cert.pem")
}
