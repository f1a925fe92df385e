package foreign

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/edgeclm/edgeclm/internal/coaplink"
	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/testpeer"
)

// TestStockServer: libcoap's server on openssl, with a binding certificate that
// openssl made, is a device that the CLM side accepts and reads the status of.
//
// A device binds its key to the client random of each handshake, and a stock
// server presents one certificate in all of them. So the test fixes the client
// random for which the certificate was made; with any other the same server is
// refused.
func TestStockServer(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"openssl", "coap-client-openssl", "coap-server-openssl"} {
		testpeer.Look(t, program)
	}
	master, err := ibc.Setup(rand.Reader, 1)
	if err != nil {
		t.Fatal(err)
	}
	device, clm := extract(t, master, ibc.RoleDevice, "plc-1"), extract(t, master, ibc.RoleCLM, "clm-1")
	p := &plant{dir: t.TempDir()}
	clientRandom := bytes.Repeat([]byte{0xa5}, coaplink.ContextSize)
	wrapBinding(t, p, device, clientRandom)
	plain, secure := p.coapServer(t)

	// The server makes a resource of whatever is put.
	status, err := cbor.Marshal(map[int]any{
		0: 1, 1: "libcoap", 2: device.Identity().String(), 8: 0, 9: 1_800_000_000, 10: []any{},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.write(t, "status", status)
	p.command(t, "coap-client-openssl", "-m", "put", "-t", "60", "-f", "status", "coap://"+plain+"/status")

	credential, err := coaplink.NewCredential(clm, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dialer := &coaplink.Dialer{Credential: credential, Params: []*ibc.Params{master.Params()}, Random: repeated(0xa5)}
	row := fleet.Device{Name: "plc-1", Identity: device.Identity(), Address: secure}
	link, err := dialer.Dial(ctx, row)
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	got, err := link.Status(ctx)
	if err != nil || got.Version != "libcoap" || got.Identity != device.Identity() {
		t.Errorf("status: %+v, %v", got, err)
	}

	dialer.Random = repeated(0x5a)
	if _, err := dialer.Dial(ctx, row); !errors.Is(err, enrol.ErrIdentity) || !strings.Contains(err.Error(), "another handshake") {
		t.Errorf("with another client random: %v", err)
	}
}

func extract(t *testing.T, master *ibc.MasterSecret, role ibc.Role, name string) *ibc.PrivateKey {
	t.Helper()
	id, err := ibc.NewIdentity(role, name, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	key, err := master.Extract(id)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// wrapBinding makes a handshake key and its binding certificate with openssl:
// server.key, server.pem. Only the signature inside the extension is ours.
func wrapBinding(t *testing.T, p *plant, device *ibc.PrivateKey, clientRandom []byte) {
	t.Helper()
	p.command(t, "openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "server.key")
	public, _ := pem.Decode(p.command(t, "openssl", "ec", "-in", "server.key", "-pubout"))
	binding, err := coaplink.NewBinding(device, rand.Reader, sha256.Sum256(public.Bytes), clientRandom)
	if err != nil {
		t.Fatal(err)
	}
	der, err := binding.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	// Later releases of openssl add key identifiers unless told not to.
	p.write(t, "openssl.cnf", fmt.Appendf(nil,
		"[req]\ndistinguished_name = name\nx509_extensions = extensions\n[name]\n[extensions]\nsubjectKeyIdentifier = none\nauthorityKeyIdentifier = none\n%s = DER:%x\n",
		coaplink.BindingOID, der))
	p.command(t, "openssl", "req", "-x509", "-new", "-config", "openssl.cnf", "-key", "server.key", "-subj", "/", "-days", "1", "-out", "server.pem")
	data, err := os.ReadFile(p.path("server.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil || len(certificate.Extensions) != 1 {
		t.Fatalf("openssl made a certificate with other extensions: %v, %v", certificate.Extensions, err)
	}
}

// coapServer starts libcoap's server and returns its addresses without and
// with DTLS, whose ports follow each other.
func (p *plant) coapServer(t *testing.T) (plain, secure string) {
	t.Helper()
	for range 20 {
		free, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := free.LocalAddr().(*net.UDPAddr).Port
		_ = free.Close()
		next, err := net.ListenPacket("udp", "127.0.0.1:"+strconv.Itoa(port+1))
		if err != nil {
			continue
		}
		_ = next.Close()
		p.background(t, `(created DTLS endpoint)`, "coap-server-openssl", "-v", "7", "-A", "127.0.0.1", "-p", strconv.Itoa(port), "-d", "10", "-n", "-c", "server.pem", "-j", "server.key")
		return fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("127.0.0.1:%d", port+1)
	}
	t.Fatal("no two free ports in a row")
	return "", ""
}

// repeated is a reader of one byte.
type repeated byte

func (r repeated) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(r)
	}
	return len(b), nil
}
