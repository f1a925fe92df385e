package consumer_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/edgeclm/edgeclm/internal/consumer"
	"github.com/edgeclm/edgeclm/internal/testpeer"
)

func withPassword(t *testing.T, content string) consumer.Consumer {
	t.Helper()
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(content), 0o640); err != nil {
		t.Fatal(err)
	}
	return consumer.Consumer{Name: "java", Dir: t.TempDir(), Files: []string{"cert.pem"}, PKCS12Password: path}
}

func TestPKCS12(t *testing.T) {
	c := withPassword(t, "correct horse\n")
	at := newPair(t, 7)
	publish(t, newSet(t, nil, c), at)
	store := filepath.Join(c.Dir, "keystore.p12")
	data := readFile(t, store)
	_, leaf, chain, err := pkcs12.DecodeChain(data, "correct horse")
	if err != nil || leaf.SerialNumber.Int64() != 7 || len(chain) != 0 {
		t.Errorf("got %v, %d others, %v", leaf, len(chain), err)
	}
	if info, err := os.Stat(store); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	// It is made of random salts, and yet not written again.
	publish(t, newSet(t, nil, c), at)
	if !bytes.Equal(readFile(t, store), data) {
		t.Error("the same pair was written again")
	}
	if err := os.WriteFile(c.PKCS12Password, []byte("other"), 0o640); err != nil {
		t.Fatal(err)
	}
	publish(t, newSet(t, nil, c), at)

	openssl := testpeer.Look(t, "openssl")
	out, err := exec.Command(openssl, "pkcs12", "-in", store, "-passin", "pass:other", "-nodes", "-info").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "AES-256-CBC") || !strings.Contains(string(out), "BEGIN PRIVATE KEY") {
		t.Errorf("openssl: %v: %s", err, out)
	}
}

// A key that lives in a TPM has no file, or one that is no PKCS#8.
func TestKeyElsewhere(t *testing.T) {
	at := newPair(t, 1)
	tss2 := []byte("-----BEGIN TSS2 PRIVATE KEY-----\nMA==\n-----END TSS2 PRIVATE KEY-----\n")
	if err := os.WriteFile(at.Key, tss2, 0o600); err != nil {
		t.Fatal(err)
	}
	plain := consumer.Consumer{Name: "web", Dir: t.TempDir()}
	publish(t, newSet(t, nil, plain), at)
	if !bytes.Equal(readFile(t, plain.Dir+"/key.pem"), tss2) {
		t.Error("key.pem is not as the agent has it")
	}
	java := withPassword(t, "secret")
	refused := func() {
		t.Helper()
		err := newSet(t, nil, java).Publish(t.Context(), at)
		if err == nil || !strings.Contains(err.Error(), "cannot be in") || !strings.Contains(err.Error(), "keystore.p12") {
			t.Errorf("got %v", err)
		}
		if _, err := os.Lstat(java.Dir + "/current"); err == nil {
			t.Error("something was published")
		}
	}
	refused()
	if err := os.Remove(at.Key); err != nil {
		t.Fatal(err)
	}
	refused()
	publish(t, newSet(t, nil, plain), at)
	if _, err := os.Lstat(plain.Dir + "/key.pem"); err == nil {
		t.Error("key.pem leads nowhere")
	}
	if data := readFile(t, plain.Dir+"/cert.pem"); len(data) == 0 {
		t.Error("no certificate")
	}
}

func TestPasswordFile(t *testing.T) {
	at := newPair(t, 1)
	for name, test := range map[string]struct {
		content string
		mode    os.FileMode
		want    string
	}{
		"for everybody": {"x", 0o644, "permissions are too open"},
		"empty":         {"\n", 0o600, "is empty"},
		"too long":      {strings.Repeat("x", 2000), 0o600, "too large"},
		"no text":       {"\xff", 0o600, "not UTF-8"},
	} {
		c := withPassword(t, test.content)
		if err := os.Chmod(c.PKCS12Password, test.mode); err != nil {
			t.Fatal(err)
		}
		if err := newSet(t, nil, c).Publish(t.Context(), at); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
