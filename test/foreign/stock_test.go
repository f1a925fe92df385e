package foreign

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/testpeer"
)

// TestStockTools: bash, openssl and libcoap's client enrol a real devagent
// twice, through all resources, give it another
// trust anchor and identity, and see it refuse what it has to. The
// statements, which no stock tool can check, hold under the PKG's parameters.
func TestStockTools(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"bash", "od", "openssl", "coap-client-openssl"} {
		testpeer.Look(t, program)
	}
	script, err := filepath.Abs("stock.sh")
	if err != nil {
		t.Fatal(err)
	}
	p := newPlant(t, "plc-1")
	if err := os.Mkdir(p.path("work"), 0o700); err != nil {
		t.Fatal(err)
	}
	p.command(t, "pkg-offline", "issue", "--dir", "pkg", "--passphrase-file", "pass", "--out", "later", "--clm", "clm-1", "--recipient-file", "dev.age", "--generation", "2", "plc-1")
	t.Logf("\n%s", p.command(t, "bash", script, p.address, "clm/credential.pem", "work", "later/dev-plc-1.e1.g2.bundle.age"))
	for _, name := range []string{"first", "second"} {
		checkStatement(t, p, name)
	}
}

// checkStatement checks what the device signed for one of the script's
// certificates.
func checkStatement(t *testing.T, p *plant, name string) {
	t.Helper()
	read := func(name string) []byte {
		data, err := os.ReadFile(p.path(name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	unhex := func(name string) []byte {
		data, err := hex.DecodeString(string(bytes.TrimSpace(read(name))))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	var params ibc.Params
	if err := json.Unmarshal(read("clm/params.json"), &params); err != nil {
		t.Fatal(err)
	}
	identity, err := ibc.NewIdentity(ibc.RoleDevice, "plc-1", 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(read("work/" + name + ".der"))
	if err != nil {
		t.Fatal(err)
	}
	message, err := enrol.StatementMessage(identity, enrol.ID(unhex("work/"+name+".id")), sha256.Sum256(leaf.RawSubjectPublicKeyInfo), sha256.Sum256(leaf.Raw))
	if err != nil {
		t.Fatal(err)
	}
	if err := params.Verify(identity, message, unhex("work/"+name+".statement")); err != nil {
		t.Errorf("statement of the %s certificate: %v", name, err)
	}
}
