package testpeer

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/labpeer"
)

// SWTPM is an emulated TPM 2.0 of its own, with an empty owner hierarchy.
type SWTPM struct {
	t       testing.TB
	dir     string
	process *labpeer.Process
}

// StartSWTPM starts a new TPM, swtpm of Debian, for the time of the test.
// Without the program the test is skipped, see Look.
func StartSWTPM(t testing.TB) *SWTPM {
	t.Helper()
	Look(t, "swtpm")
	// The path of a socket has at most 107 bytes, and t.TempDir may have more.
	dir, err := os.MkdirTemp("", "tpm-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s := &SWTPM{t: t, dir: dir}
	t.Cleanup(func() {
		s.Stop()
		if log, err := os.ReadFile(filepath.Join(dir, "log")); err == nil && t.Failed() && len(log) > 0 {
			t.Logf("log of swtpm:\n%s", log)
		}
	})
	s.Start()
	return s
}

// Socket is the UNIX socket that takes bare commands, for one peer at a time.
func (s *SWTPM) Socket() string { return filepath.Join(s.dir, "tpm") }

// TCTI says to tpm2-tss how this TPM is reached, in TPM2OPENSSL_TCTI or
// TPM2TOOLS_TCTI.
func (s *SWTPM) TCTI() string { return "swtpm:path=" + s.Socket() }

// Start starts a TPM that was stopped: what it held in its volatile memory is
// lost, its secrets are the same.
func (s *SWTPM) Start() {
	s.t.Helper()
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = log.Close() }() // the process has its own
	ctx := context.WithoutCancel(s.t.Context())
	s.process, err = labpeer.StartProcess(ctx, Look(s.t, "swtpm"), []string{
		"socket", "--tpm2", "--tpmstate", "dir=" + s.dir, "--server", "type=unixio,path=" + s.Socket(),
		"--ctrl", "type=unixio,path=" + s.Socket() + ".ctrl", "--flags", "not-need-init,startup-clear",
	}, nil, log)
	if err != nil {
		s.t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", s.Socket())
		if err == nil {
			_ = conn.Close()
			return
		}
		select {
		case <-s.process.Done():
			s.t.Fatalf("swtpm ended: %v", s.process.Err())
		default:
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("swtpm does not listen: %v", err)
		}
	}
}

// Stop ends the TPM. It may be called again.
func (s *SWTPM) Stop() {
	if s.process == nil {
		return
	}
	s.process.Stop()
	s.process = nil
	for _, socket := range []string{s.Socket(), s.Socket() + ".ctrl"} {
		if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.t.Error(err)
		}
	}
}

// OpenSSLTPM2 returns the path of an openssl that has the tpm2 provider, of
// Debian's tpm2-openssl. Without it the test is skipped, see Missing.
func OpenSSLTPM2(t testing.TB) string {
	t.Helper()
	openssl := Look(t, "openssl")
	dir, err := exec.CommandContext(t.Context(), openssl, "version", "-m").Output()
	if err != nil {
		t.Fatalf("openssl version -m: %v", err)
	}
	_, path, ok := strings.Cut(strings.TrimSpace(string(dir)), ": ")
	if !ok {
		t.Fatalf("openssl version -m: %s", dir)
	}
	if _, err := os.Stat(filepath.Join(strings.Trim(path, `"`), "tpm2.so")); err != nil {
		Missing(t, "OpenSSL's tpm2 provider is not installed")
	}
	return openssl
}
