package consumer_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/edgeclm/edgeclm/internal/consumer"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
	"github.com/edgeclm/edgeclm/internal/testpeer"
)

func TestPublish(t *testing.T) {
	// What is published must not depend on who starts the agent.
	defer syscall.Umask(syscall.Umask(0o077))
	dir, elsewhere := filepath.Join(t.TempDir(), "web"), t.TempDir()
	c := consumer.Consumer{
		Name: "web", Dir: dir, Group: fmt.Sprint(os.Getegid()),
		Files: []string{"key.pem", "cert.pem", "chain.pem", "fullchain.pem", "ca.pem", "combined.pem"},
		Links: map[string]string{"key.pem": elsewhere + "/server.key"},
	}
	first := newPair(t, 1)
	s := newSet(t, nil, c)
	if !s.Stale(first) {
		t.Error("not stale though nothing was ever published")
	}
	publish(t, s, first)
	for name, want := range map[string]struct {
		content string
		mode    fs.FileMode
	}{
		"key.pem":       {string(readFile(t, first.Key)), 0o640},
		"cert.pem":      {string(readFile(t, first.Certificate)), 0o644},
		"chain.pem":     {string(readFile(t, first.Chain)), 0o644},
		"fullchain.pem": {string(readFile(t, first.Chain)), 0o644},
		"ca.pem":        {string(readFile(t, first.CA)), 0o644},
		"combined.pem":  {string(readFile(t, first.Key)) + string(readFile(t, first.Chain)), 0o640},
	} {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err != nil || info.Mode() != want.mode || string(readFile(t, path)) != want.content {
			t.Errorf("%s: mode %v, %v, or another content", name, info, err)
		}
	}
	for _, path := range []string{dir, filepath.Join(dir, "current")} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	if got := string(readFile(t, elsewhere+"/server.key")); got != string(readFile(t, first.Key)) {
		t.Error("the link elsewhere leads to another content")
	}

	// A file less: its stable path goes too. Another mode: the files follow.
	c.Files, c.KeyMode = []string{"key.pem", "cert.pem"}, 0o600
	s = newSet(t, nil, c)
	if !s.Stale(first) {
		t.Error("not stale though the configuration changed")
	}
	publish(t, s, first)
	if _, err := os.Lstat(filepath.Join(dir, "ca.pem")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ca.pem: %v", err)
	}
	if info, err := os.Stat(filepath.Join(dir, "key.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key.pem: %v, %v", info, err)
	}

	if err := s.Withdraw(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "key.pem")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after a withdrawal: %v", err)
	}
	if err := s.Withdraw(); err != nil {
		t.Error(err)
	}
	publish(t, s, first)
}

// Flash wears out: what is there is not written again, and a rollback writes
// a link.
func TestPublishWritesOnlyWhatChanged(t *testing.T) {
	dir := t.TempDir()
	c := consumer.Consumer{Name: "web", Dir: dir, Files: []string{"key.pem", "cert.pem"}}
	first, second := newPair(t, 1), newPair(t, 2)
	count := func(at consumer.Paths) int {
		layer := cutLayer{keyfiletest.New(0, keyfiletest.Kill)}
		publish(t, newSet(t, layer, c), at)
		return layer.Operations()
	}
	count(first)
	renewal := count(second)
	if again := count(second); again != 0 {
		t.Errorf("the same pair again took %d operations", again)
	}
	back := count(first)
	t.Logf("file operations: renewal %d, rollback %d", renewal, back)
	if back != 3 {
		t.Errorf("a rollback took %d operations, want those of one link", back)
	}
	if got := serial(t, dir); got != 1 {
		t.Errorf("serial %d", got)
	}
}

// What somebody's hand has broken is made again.
func TestPublishRepairs(t *testing.T) {
	dir := t.TempDir()
	s := newSet(t, nil, consumer.Consumer{Name: "web", Dir: dir})
	at := newPair(t, 1)
	publish(t, s, at)
	version, err := os.Readlink(filepath.Join(dir, "current"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, version, "key.pem"), filepath.Join(dir, version), filepath.Join(dir, "key.pem"), filepath.Join(dir, "current")} {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if !s.Stale(at) {
			t.Errorf("not stale without %s", path)
		}
		publish(t, s, at)
		if got := serial(t, dir); got != 1 {
			t.Errorf("serial %d", got)
		}
	}
}

// Attack: none; the power fails, or the agent is killed, at every operation.
// Whoever looks then finds one complete pair, and publishing again ends with
// the right one.
func TestPublishIsCutAnywhere(t *testing.T) {
	first, second := newPair(t, 1), newPair(t, 2)
	layers := map[string]func(n int) *keyfiletest.Layer{
		"kill":       func(n int) *keyfiletest.Layer { return keyfiletest.New(n, keyfiletest.Kill) },
		"power loss": func(n int) *keyfiletest.Layer { return keyfiletest.New(n, keyfiletest.PowerLoss) },
	}
	for seed := range uint64(3) {
		layers[fmt.Sprint("scattered ", seed)] = func(n int) *keyfiletest.Layer { return keyfiletest.NewScattered(n, seed) }
	}
	work := memoryDir(t)
	for name, cutAt := range layers {
		for _, before := range []int64{0, 1} {
			for n := 1; ; n++ {
				dir := filepath.Join(work, fmt.Sprint(name, before, n))
				c := consumer.Consumer{Name: "web", Dir: dir}
				whole := newSet(t, cutLayer{keyfiletest.New(0, keyfiletest.Kill)}, c)
				if before == 1 {
					publish(t, whole, first)
				}
				layer := cutLayer{cutAt(n)}
				err := newSet(t, layer, c).Publish(t.Context(), second)
				if !layer.Cut() {
					if err != nil {
						t.Fatal(err)
					}
					break
				}
				if got := serial(t, filepath.Join(dir, "current")); got != before && got != 2 {
					t.Fatalf("%s: cut at %d: serial %d", name, n, got)
				}
				publish(t, whole, second)
				if got := serial(t, dir); got != 2 {
					t.Fatalf("%s: cut at %d, resumed: serial %d", name, n, got)
				}
				for _, left := range []string{".*tmp*", ".*.link*"} {
					if found, _ := filepath.Glob(filepath.Join(dir, left)); len(found) > 0 {
						t.Fatalf("%s: cut at %d: left behind: %v", name, n, found)
					}
				}
			}
		}
	}
}

// A reader that resolves the link once never meets two pairs.
func TestReaderSeesOnePair(t *testing.T) {
	dir := t.TempDir()
	pairs := []consumer.Paths{newPair(t, 1), newPair(t, 2)}
	s := newSet(t, nil, consumer.Consumer{Name: "web", Dir: dir})
	publish(t, s, pairs[0])
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			version, err := os.Readlink(filepath.Join(dir, "current"))
			if err != nil {
				t.Error(err)
				return
			}
			at := filepath.Join(dir, version)
			if _, err := tls.LoadX509KeyPair(at+"/cert.pem", at+"/key.pem"); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
				return
			}
		}
	})
	for i := range 40 {
		publish(t, s, pairs[(i+1)%2])
	}
	close(done)
	wg.Wait()
}

func TestHooks(t *testing.T) {
	work := t.TempDir()
	log := filepath.Join(work, "log")
	run := func(name, then string) consumer.Consumer {
		script := `echo "` + name + ` $EDGECLM_CONSUMER $EDGECLM_CERT_FILE $EDGECLM_RESTORED" >> ` + log + "; " + then
		c := consumer.Consumer{Name: name, Hook: []string{"sh", "-c", script}}
		if name != "" {
			c.Dir = filepath.Join(work, name)
		}
		return c
	}
	at := newPair(t, 1)
	want := func(lines ...string) {
		t.Helper()
		if got := string(readFile(t, log)); got != strings.Join(lines, "\n")+"\n" {
			t.Errorf("the hooks ran as %q", got)
		}
		_ = os.Remove(log)
	}
	publish(t, newSet(t, nil, run("", "true"), run("b", "true"), run("a", "true")), at)
	want("  "+at.Certificate+" ", "b b "+work+"/b/cert.pem ", "a a "+work+"/a/cert.pem ")

	// The first failure ends it, after everybody has got the files.
	s := newSet(t, nil, run("b", "exit 3"), run("c", "true"))
	err := s.Publish(t.Context(), at)
	if err == nil || err.Error() != "consumer b: the reload hook failed: exit status 3" {
		t.Errorf("got %v", err)
	}
	want("b b " + work + "/b/cert.pem ")
	if got := serial(t, filepath.Join(work, "c")); got != 1 {
		t.Errorf("serial %d", got)
	}

	// On the way back everybody has a turn.
	at.Restored = true
	err = s.Publish(t.Context(), at)
	if err == nil || err.Error() != "consumer b: the reload hook failed: exit status 3" {
		t.Errorf("got %v", err)
	}
	want("b b "+work+"/b/cert.pem yes", "c c "+work+"/c/cert.pem yes")

	// No hook runs where a consumer cannot get the files.
	at.Restored = false
	s = newSet(t, nil, run("b", "true"), consumer.Consumer{Name: "d", Dir: filepath.Join(work, "none", "d")})
	if err := s.Publish(t.Context(), at); err == nil || !strings.Contains(err.Error(), "consumer d: ") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(log); err == nil {
		t.Error("a hook was run")
	}
}

// What somebody else put in the place of a stable path is left alone.
func TestPathTaken(t *testing.T) {
	dir, other := t.TempDir(), filepath.Join(t.TempDir(), "server.key")
	if err := os.WriteFile(other, []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newSet(t, nil, consumer.Consumer{Name: "web", Dir: dir, Links: map[string]string{"key.pem": other}})
	if err := s.Publish(t.Context(), newPair(t, 1)); !errors.Is(err, consumer.ErrTaken) {
		t.Errorf("got %v", err)
	}
	if string(readFile(t, other)) != "theirs" {
		t.Error("the file was replaced")
	}
}

// Attack: a consumer that runs as a user of its own turns its directory into
// links, to have an agent that runs as root give files of others away.
func TestAttackDirectoryOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		testpeer.Missing(t, "only root can give a directory away")
	}
	parent := t.TempDir()
	dir := filepath.Join(parent, "web")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := newSet(t, nil, consumer.Consumer{Name: "web", Dir: dir, Owner: "65534", Group: "65534"})
	at := newPair(t, 1)
	publish(t, s, at)
	if info, err := os.Stat(filepath.Join(dir, "key.pem")); err != nil || info.Sys().(*syscall.Stat_t).Uid != 65534 {
		t.Errorf("key.pem was not given away: %v", err)
	}
	for _, path := range []string{dir, parent} {
		if err := os.Chown(path, 65534, -1); err != nil {
			t.Fatal(err)
		}
		if err := s.Publish(t.Context(), at); err == nil || !strings.Contains(err.Error(), "can be changed by others") {
			t.Errorf("%s of another user: %v", path, err)
		}
		if err := os.Chown(path, 0, -1); err != nil {
			t.Fatal(err)
		}
	}
}

func TestInvalidConsumers(t *testing.T) {
	good := consumer.Consumer{Name: "web", Dir: "/etc/web"}
	if _, err := consumer.New(consumer.Config{Consumers: []consumer.Consumer{good}}); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*consumer.Consumer){
		"name":                 func(c *consumer.Consumer) { c.Name = "We b" },
		"neither dir nor hook": func(c *consumer.Consumer) { c.Dir = "" },
		"files without dir":    func(c *consumer.Consumer) { c.Dir, c.Hook, c.Owner = "", []string{"true"}, "web" },
		"relative":             func(c *consumer.Consumer) { c.Dir = "web" },
		"not clean":            func(c *consumer.Consumer) { c.Dir = "/etc/../web" },
		"root":                 func(c *consumer.Consumer) { c.Dir = "/" },
		"unknown file":         func(c *consumer.Consumer) { c.Files = []string{"../key.pem"} },
		"file twice":           func(c *consumer.Consumer) { c.Files = []string{"ca.pem", "ca.pem"} },
		"no file":              func(c *consumer.Consumer) { c.Files = []string{} },
		"link of no file":      func(c *consumer.Consumer) { c.Links = map[string]string{"keystore.p12": "/a"} },
		"link in the dir":      func(c *consumer.Consumer) { c.Links = map[string]string{"ca.pem": "/etc/web/x"} },
		"key for everybody":    func(c *consumer.Consumer) { c.KeyMode = 0o644 },
		"writable":             func(c *consumer.Consumer) { c.Mode = 0o664 },
		"password":             func(c *consumer.Consumer) { c.PKCS12Password = "secret" },
	} {
		c := good
		change(&c)
		if err := c.Validate(); !errors.Is(err, consumer.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, other := range map[string]consumer.Consumer{
		"same name": {Name: "web", Dir: "/etc/b"},
		"same dir":  {Name: "b", Dir: "/etc/web"},
	} {
		if _, err := consumer.New(consumer.Config{Consumers: []consumer.Consumer{good, other}}); !errors.Is(err, consumer.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
