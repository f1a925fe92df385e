package demo

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/enrol"
	"github.com/edgeclm/edgeclm/internal/ibc"
)

// checked is a demo that has come to its checks: one device with one
// certificate of a CA.
type checked struct {
	*show
	records []record
	leaf    *x509.Certificate
}

func newChecked(t *testing.T) *checked {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	must(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "plc"}, NotBefore: root.NotBefore, NotAfter: root.NotAfter}
	der, err := x509.CreateCertificate(rand.Reader, template, root, key.Public(), rootKey)
	must(err)
	leaf, err := x509.ParseCertificate(der)
	must(err)

	master, err := ibc.Setup(rand.Reader, 1)
	must(err)
	id := ibc.Identity{Role: ibc.RoleDevice, Name: "plc", Epoch: 1, Generation: 1}
	d, err := master.Extract(id)
	must(err)
	enrolment, nonce, sum := enrol.ID{7}, [enrol.NonceSize]byte{8}, sha256.Sum256(der)
	message, err := enrol.PossessionMessage(id, enrolment, nonce, sum)
	must(err)
	digest, hash := enrol.PossessionDigest(leaf.PublicKey, message)
	possession, err := key.Sign(rand.Reader, digest, hash)
	must(err)
	message, err = enrol.StatementMessage(id, enrolment, sha256.Sum256(leaf.RawSubjectPublicKeyInfo), sum)
	must(err)
	statement, err := d.Sign(rand.Reader, message)
	must(err)

	c := &checked{leaf: leaf, show: &show{
		Options: Options{Out: new(bytes.Buffer), Now: time.Now}, dir: t.TempDir(), root: "root.pem",
		devices: []device{{name: "plc", dir: "dev1"}},
	}}
	params, err := json.Marshal(master.Params())
	must(err)
	history, err := json.Marshal(map[string]any{"certificates": []any{map[string]any{
		"enrolment": enrolment.String(), "active": true, "der": base64.StdEncoding.EncodeToString(der),
		"receipt": map[string]string{
			"identity": id.String(), "nonce": hex.EncodeToString(nonce[:]),
			"possession": hex.EncodeToString(possession), "statement": hex.EncodeToString(statement),
		},
	}}})
	must(err)
	c.records = make([]record, 1)
	must(json.Unmarshal(history, &c.records[0]))
	must(c.write("pkg/params.json", string(params)))
	must(c.write("root.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rootDER}))))
	must(c.write("dev1/active/cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))))
	must(c.write("dev1/active/chain.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))))
	return c
}

// The demo's checks accept what is right, and nothing else.
func TestChecks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(c *checked)
		want  string
	}{
		"all is well":            {func(*checked) {}, ""},
		"no statement":           {func(c *checked) { c.records[0].Certificates[0].Receipt = nil }, "has no statement"},
		"another statement":      {func(c *checked) { flip(&c.records[0].Certificates[0].Receipt.Statement) }, "statement"},
		"another possession":     {func(c *checked) { flip(&c.records[0].Certificates[0].Receipt.Possession) }, "possession"},
		"another nonce":          {func(c *checked) { flip(&c.records[0].Certificates[0].Receipt.Nonce) }, "possession"},
		"another identity":       {func(c *checked) { c.records[0].Certificates[0].Receipt.Identity = "edgeclm/v1/dev/plc/e1.g2" }, "possession"},
		"another enrolment":      {func(c *checked) { c.records[0].Certificates[0].Enrolment = strings.Repeat("00", 16) }, "possession"},
		"another certificate":    {func(c *checked) { c.records[0].Certificates[0].DER = "" }, "serves another certificate"},
		"none is active":         {func(c *checked) { c.records[0].Certificates[0].Active = false }, "serves another certificate"},
		"it has expired":         {func(c *checked) { c.Now = func() time.Time { return time.Now().Add(2 * time.Hour) } }, "expired"},
		"the root is another CA": {func(c *checked) { c.root = "dev1/active/cert.pem" }, "unknown authority|basic constraints|not authorized|exit status"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newChecked(t)
			c.spoil(x)
			err := x.checkChains(context.Background(), x.records)
			if err == nil {
				err = x.checkStatements(x.records)
			}
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			for want := range strings.SplitSeq(c.want, "|") {
				if err != nil && strings.Contains(err.Error(), want) {
					return
				}
			}
			t.Errorf("got %v, want %q", err, c.want)
		})
	}
}

// flip changes the last digit of a hexadecimal text.
func flip(text *string) {
	last := (*text)[len(*text)-1]
	if last == '0' {
		last = '1'
	} else {
		last = '0'
	}
	*text = (*text)[:len(*text)-1] + string(last)
}
