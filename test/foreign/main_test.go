package foreign

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/edgeclm/edgeclm/internal/cli/clitest"
	"github.com/edgeclm/edgeclm/internal/labpeer"
)

// TestMain makes the three programs of this very test binary, on the PATH.
func TestMain(m *testing.M) {
	testscript.Main(m, clitest.Programs(os.Exit))
}

// plant is a folder with a PKG (pkg, params in clm), a CLM (clm) and one device
// (dev) that serves.
type plant struct {
	dir     string
	address string // of the device
}

func (p *plant) path(name string) string { return filepath.Join(p.dir, name) }

// command runs a program in the folder and returns what it wrote to standard output.
func (p *plant) command(t *testing.T, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Stderr = p.dir, &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%q: %v\n%s%s", args, err, out, &stderr)
	}
	return out
}

func (p *plant) write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(p.path(name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// log is what a program in the background has written.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// background starts a program that ends with the test, and waits until it has
// written what the pattern matches; it returns the pattern's group.
func (p *plant) background(t *testing.T, pattern string, args ...string) string {
	t.Helper()
	path, err := labpeer.Find(args[0])
	if err != nil {
		t.Fatal(err)
	}
	var out log
	process, err := labpeer.StartProcessIn(context.WithoutCancel(t.Context()), p.dir, path, args[1:], nil, &out)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		process.Stop()
		if t.Failed() {
			t.Logf("%s:\n%s", args[0], &out)
		}
	})
	want := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if m := want.FindStringSubmatch(out.String()); m != nil {
			return m[1]
		}
		select {
		case <-process.Done():
			t.Fatalf("%q ended: %s", args, &out)
		default:
		}
	}
	t.Fatalf("%q did not write %s: %s", args, pattern, &out)
	return ""
}

// newPlant makes the plant with the commands that a technician would use.
func newPlant(t *testing.T, device string) *plant {
	t.Helper()
	p := &plant{dir: t.TempDir()}
	p.write(t, "pass", []byte("hove boni soro xehe fohi vobu pofe kico\n"))
	p.command(t, "pkg-offline", "init", "--dir", "pkg", "--passphrase-file", "pass")
	p.write(t, "clm.age", p.command(t, "clmctl", "--data-dir", "clm", "recipient"))
	p.write(t, "dev.age", p.command(t, "devagent", "--data-dir", "dev", "recipient"))
	issue := []string{"pkg-offline", "issue", "--dir", "pkg", "--passphrase-file", "pass", "--out", "usb"}
	p.command(t, append(issue, "--role", "clm", "--recipient-file", "clm.age", "clm-1")...)
	p.command(t, append(issue, "--clm", "clm-1", "--recipient-file", "dev.age", device)...)
	p.command(t, "clmctl", "--data-dir", "clm", "init", "--bundle", "usb/clm-clm-1.e1.g1.bundle.age")
	p.command(t, "devagent", "--data-dir", "dev", "provision", "usb/dev-"+device+".e1.g1.bundle.age")
	p.address = p.background(t, `listening on (127\.0\.0\.1:[1-9][0-9]*)`, "devagent", "--data-dir", "dev", "serve", "--listen", "127.0.0.1:0")
	return p
}
