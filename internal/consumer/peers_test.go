package consumer_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/consumer"
	"github.com/edgeclm/edgeclm/internal/testpeer"
)

// The servers of docs/consumers.md, as Debian has them: what a client sees of a
// renewal, and of a rollback.

// patience only guards against hangs.
const patience = time.Minute

// daemon runs a server of another package until the test ends.
func daemon(t *testing.T, name string, args ...string) *os.Process {
	t.Helper()
	cmd := exec.Command(testpeer.Look(t, name), args...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		kill.Stop()
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, &log)
		}
	})
	return cmd.Process
}

// freeAddress returns an address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// dial makes a TLS connection and returns it with the serial number of the
// certificate that was shown.
func dial(address string) (*tls.Conn, int64, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return nil, 0, err
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn, conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(), nil
}

// shows waits until new connections see a certificate, and returns how many
// of them failed until then.
func shows(t *testing.T, address string, want int64) (failed int) {
	t.Helper()
	var last error
	connections := 0
	for began := time.Now(); time.Since(began) < patience; time.Sleep(5 * time.Millisecond) {
		conn, serial, err := dial(address)
		connections++
		if err != nil {
			last = err
			failed++
			continue
		}
		_ = conn.Close()
		if serial == want {
			t.Logf("certificate %d after %v, %d of %d connections failed", want, time.Since(began).Round(time.Millisecond), failed, connections)
			return failed
		}
		last = fmt.Errorf("serial %d", serial)
	}
	t.Fatalf("%s does not show certificate %d: %v", address, want, last)
	return failed
}

func write(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// asRoot returns a line of configuration that is for tests that run as root:
// their directories are root's.
func asRoot(line string) string {
	if os.Geteuid() == 0 {
		return line
	}
	return ""
}

// nginx ends a download that is under way with the old certificate, shows the
// new one to new connections, and refuses none in between.
func TestNginx(t *testing.T) {
	dir, address := t.TempDir(), freeAddress(t)
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // more than any buffer takes
	if err := os.WriteFile(filepath.Join(dir, "large"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "small"), "hello")
	conf := write(t, filepath.Join(dir, "nginx.conf"), fmt.Sprintf(`%[3]s
daemon off;
worker_processes 1;
pid %[1]s/nginx.pid;
error_log stderr;
events {}
http {
	access_log off;
	client_body_temp_path %[1]s/t1; proxy_temp_path %[1]s/t2; fastcgi_temp_path %[1]s/t3; uwsgi_temp_path %[1]s/t4; scgi_temp_path %[1]s/t5;
	server {
		listen %[2]s ssl;
		ssl_certificate %[1]s/tls/chain.pem;
		ssl_certificate_key %[1]s/tls/key.pem;
		root %[1]s;
	}
}
`, dir, address, asRoot("user root;")))
	nginx := testpeer.Look(t, "nginx")
	c := consumer.Consumer{Name: "nginx", Dir: filepath.Join(dir, "tls"), Files: []string{"key.pem", "chain.pem"}}
	first, second := newPair(t, 1), newPair(t, 2)
	publish(t, newSet(t, nil, c), first)
	daemon(t, nginx, "-c", conf, "-e", "stderr")
	shows(t, address, 1)

	get := func(conn *tls.Conn, path string) {
		if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path); err != nil {
			t.Fatal(err)
		}
	}
	download, _, err := dial(address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = download.Close() }()
	get(download, "/large")
	body := bufio.NewReader(download)
	for line := ""; line != "\r\n"; {
		if line, err = body.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	idle, _, err := dial(address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = idle.Close() }()
	get(idle, "/small")
	answer := make([]byte, 4096)
	if n, err := idle.Read(answer); err != nil || !bytes.HasSuffix(answer[:n], []byte("hello")) {
		t.Fatalf("%q, %v", answer[:n], err)
	}

	c.Hook = []string{nginx, "-c", conf, "-e", "stderr", "-s", "reload"}
	s := newSet(t, nil, c)
	for _, step := range []struct {
		pair   consumer.Paths
		serial int64
	}{{second, 2}, {first, 1}, {second, 2}} {
		publish(t, s, step.pair)
		if failed := shows(t, address, step.serial); failed != 0 {
			t.Errorf("%d connections failed during the reload", failed)
		}
	}
	// An idle connection is ended properly: a client sees the end, not an error.
	if n, err := io.Copy(io.Discard, idle); n != 0 || err != nil {
		t.Errorf("the idle connection: %d bytes, %v", n, err)
	}
	got := sha256.New()
	if n, err := io.CopyN(got, body, int64(len(content))); err != nil || [32]byte(got.Sum(nil)) != sha256.Sum256(content) {
		t.Errorf("the download: %d bytes of %d, %v", n, len(content), err)
	}

	// What nginx does not take is the hook's failure.
	write(t, conf, string(readFile(t, conf))+"nonsense\n")
	if err := s.Publish(t.Context(), first); err == nil || !strings.Contains(err.Error(), "consumer nginx: the reload hook failed: exit status 1") {
		t.Errorf("got %v", err)
	}
}

// Mosquitto keeps the connections that it has, and shows the new certificate
// to new ones.
func TestMosquitto(t *testing.T) {
	dir, address := t.TempDir(), freeAddress(t)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	conf := write(t, filepath.Join(dir, "mosquitto.conf"), fmt.Sprintf(`listener %s %s
certfile %[3]s/tls/chain.pem
keyfile %[3]s/tls/key.pem
allow_anonymous true
%[4]s
`, port, host, dir, asRoot("user root")))
	c := consumer.Consumer{Name: "mosquitto", Dir: filepath.Join(dir, "tls"), Files: []string{"key.pem", "chain.pem"}}
	first, second := newPair(t, 1), newPair(t, 2)
	publish(t, newSet(t, nil, c), first)
	broker := daemon(t, "mosquitto", "-c", conf)
	shows(t, address, 1)

	anchors := write(t, filepath.Join(dir, "anchors.pem"), string(readFile(t, first.CA))+string(readFile(t, second.CA)))
	common := []string{"-h", "localhost", "-p", port, "--cafile", anchors, "-t", "press/3"}
	// Its output is for a pipe, and is wanted line by line.
	subscriber := exec.Command(testpeer.Look(t, "stdbuf"), append([]string{"-oL", testpeer.Look(t, "mosquitto_sub"), "-q", "1", "-i", "press", "-d"}, common...)...)
	out, err := subscriber.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := subscriber.Start(); err != nil {
		t.Fatal(err)
	}
	kill := sync.OnceFunc(func() { _ = subscriber.Process.Kill() })
	guard := time.AfterFunc(patience, kill)
	defer func() {
		guard.Stop()
		kill()
		_ = subscriber.Wait()
	}()
	lines := bufio.NewScanner(out)
	connects := 0
	waitFor := func(text string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), "sending CONNECT") {
				connects++
			}
			if strings.Contains(lines.Text(), text) {
				return
			}
		}
		t.Fatalf("the subscriber ended before %q", text)
	}
	send := func(message string) {
		t.Helper()
		out, err := exec.Command(testpeer.Look(t, "mosquitto_pub"), append(slices.Clone(common), "-q", "1", "-m", message)...).CombinedOutput()
		if err != nil {
			t.Errorf("publish: %v: %s", err, out)
		}
		waitFor(message)
	}
	waitFor("SUBACK")
	send("before the renewal")
	c.Hook = []string{"sh", "-c", fmt.Sprintf("kill -HUP %d", broker.Pid)}
	s := newSet(t, nil, c)
	for _, step := range []struct {
		pair   consumer.Paths
		serial int64
	}{{second, 2}, {first, 1}} {
		publish(t, s, step.pair)
		if failed := shows(t, address, step.serial); failed != 0 {
			t.Errorf("%d connections failed during the reload", failed)
		}
		send(fmt.Sprint("after certificate ", step.serial))
	}
	if connects != 1 {
		t.Errorf("the subscriber connected %d times", connects)
	}
}
