package demo_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/demo"
	"github.com/edgeclm/edgeclm/internal/labpeer"
	"github.com/edgeclm/edgeclm/internal/testpeer"
)

// programs is where the three programs are built, once.
var programs string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "edgeclm-demo-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	programs = dir
	cmd := exec.Command("go", "build", "-o", dir+"/", "./cmd/clmctl", "./cmd/devagent", "./cmd/pkg-offline")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v: %s", err, out)
		return 1
	}
	return m.Run()
}

// Two demos at once do not disturb each other, and nothing of them is left:
// no process, no file.
func TestDemoTwiceAtOnce(t *testing.T) {
	testpeer.Look(t, "openssl")
	kinds := []string{demo.LabCA, demo.LabCA}
	if _, err := labpeer.Find(labpeer.StepCA); err == nil {
		kinds[1] = demo.StepCA
	}
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	var both sync.WaitGroup
	for _, kind := range kinds {
		both.Go(func() {
			var out bytes.Buffer
			err := demo.Run(context.Background(), demo.Options{Programs: programs, CA: kind, Out: &out, Now: time.Now})
			if err != nil {
				t.Errorf("%s: %v\n%s", kind, err, &out)
			}
			for what, n := range map[string]int{"checked=4 due=4 renewed=4": 2, "active/cert.pem: OK": 4, ".bilbao/e1.g1  ": 8, "Everything was as it should be": 1} {
				if got := strings.Count(out.String(), what); got != n {
					t.Errorf("%s: %q is there %d times, not %d:\n%s", kind, what, got, n, &out)
				}
			}
		})
	}
	both.Wait()
	nothingLeft(t, temp)
}

// A demo that is interrupted leaves nothing either.
func TestDemoInterrupted(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	out := &trigger{word: "clmctl lab-ca serve", pull: cancel}
	err := demo.Run(ctx, demo.Options{Programs: programs, CA: demo.LabCA, Out: out, Now: time.Now})
	if err == nil || err.Error() != "interrupted" {
		t.Errorf("%v\n%s", err, &out.Buffer)
	}
	nothingLeft(t, temp)
}

// trigger pulls when a word is written.
type trigger struct {
	bytes.Buffer
	word string
	pull func()
}

func (w *trigger) Write(p []byte) (int, error) {
	if strings.Contains(string(p), w.word) {
		w.pull()
	}
	return w.Buffer.Write(p)
}

func TestDemoWithoutPrograms(t *testing.T) {
	err := demo.Run(context.Background(), demo.Options{Programs: t.TempDir(), CA: demo.LabCA, Out: new(bytes.Buffer), Now: time.Now})
	if err == nil || !strings.Contains(err.Error(), "pkg-offline is not beside this one") {
		t.Error(err)
	}
}

// nothingLeft fails if a process works below a directory, or a file is in it.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("left in %s: %v (%v)", dir, entries, err)
	}
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if cwd, err := os.Readlink(link); err == nil && strings.HasPrefix(cwd, dir) {
			t.Errorf("%s still works in %s", filepath.Dir(link), cwd)
		}
	}
}
