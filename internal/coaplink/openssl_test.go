package coaplink

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/testpeer"
)

// opensslClient lets openssl's client do a handshake with what is in a PEM
// file, if any, hang up once served says so, and returns what it said.
func opensslClient(t *testing.T, addr string, credential []byte, served func() bool, more ...string) (output string, err error) {
	t.Helper()
	args := append([]string{"s_client", "-dtls1_2", "-connect", addr}, more...)
	if credential != nil {
		file := filepath.Join(t.TempDir(), "credential.pem")
		if err := os.WriteFile(file, credential, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "-cert", file, "-key", file)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, testpeer.Look(t, "openssl"), args...)
	var out logBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case err := <-ended:
			return out.String(), err
		case <-time.After(5 * time.Millisecond):
		}
		if served() {
			_ = stdin.Close() // its end ends the client
		}
	}
}

// TestOpenSSLHandshake: another implementation of DTLS completes the handshake
// with a device when it presents a binding certificate that the device
// accepts, and gets an alert otherwise.
func TestOpenSSLHandshake(t *testing.T) {
	p := newPKG(t, 1)
	key := p.key(t, ibc.RoleDevice, "plc-1", 1)
	stored := func(name string) []byte {
		data, err := p.credential(t, name, 1).MarshalPEM()
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	for _, c := range []struct {
		name       string
		credential []byte
		more       []string
		want       []string
		refused    bool
	}{
		{name: "the CLM", credential: stored("clm-1"), want: []string{"Cipher is ECDHE-ECDSA-AES256-GCM-SHA384", "Extended master secret: yes"}},
		{name: "the CLM with the shorter suite", credential: stored("clm-1"), more: []string{"-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"}, want: []string{"Cipher is ECDHE-ECDSA-AES128-GCM-SHA256"}},
		{name: "another identity", credential: stored("clm-2"), refused: true, want: []string{"bad certificate"}},
		{name: "no certificate", refused: true, want: []string{"alert"}},
		{name: "another suite", credential: stored("clm-1"), more: []string{"-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"}, refused: true, want: []string{"alert"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := &logBuffer{}
			s := newServer(key, newPeers("clm-1"), &fakeServices{})
			s.Log = log.logger()
			addr, stop := serve(t, s)
			served := func() bool { return strings.Contains(log.String(), "session opened") }
			out, err := opensslClient(t, addr, c.credential, served, c.more...)
			stop()
			if (err != nil) != c.refused || served() == c.refused {
				t.Errorf("%v\n%s", err, log)
			}
			for _, w := range c.want {
				if !strings.Contains(out, w) {
					t.Errorf("openssl did not say %q:\n%s", w, out)
				}
			}
		})
	}
}
