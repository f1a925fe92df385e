package consumer_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/consumer"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
)

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// memoryDir returns a directory that costs no disk anything, where there is
// one.
func memoryDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "edgeclm-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// newPair writes a key and a certificate with that serial number for
// localhost, as the agent would, and returns where.
func newPair(t testing.TB, serial int64) consumer.Paths {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: fmt.Sprint("device ", serial)}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p := consumer.Paths{Dir: dir, Key: dir + "/key.pem", Certificate: dir + "/cert.pem", Chain: dir + "/chain.pem", CA: dir + "/ca.pem"}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for path, data := range map[string][]byte{
		p.Key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		p.Certificate: certificate, p.Chain: certificate, p.CA: certificate,
	} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// serial loads key and certificate from a directory, which have to match, and
// returns the serial number; 0 if there is none.
func serial(t testing.TB, dir string) int64 {
	t.Helper()
	if _, err := os.Stat(dir); err != nil {
		return 0
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf.SerialNumber.Int64()
}

func newSet(t testing.TB, layer consumer.Layer, consumers ...consumer.Consumer) *consumer.Set {
	t.Helper()
	s, err := consumer.New(consumer.Config{
		Consumers: consumers, Layer: layer, Env: []string{"PATH=" + os.Getenv("PATH")}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func publish(t testing.TB, s *consumer.Set, at consumer.Paths) {
	t.Helper()
	if err := s.Publish(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	if s.Stale(at) {
		t.Error("stale after it was published")
	}
}

// cutLayer is a layer that fails like a machine does.
type cutLayer struct{ *keyfiletest.Layer }

func (cutLayer) Own(path string, uid, gid int, perm fs.FileMode) error {
	return consumer.OS{}.Own(path, uid, gid, perm)
}
