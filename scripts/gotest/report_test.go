package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Packages of a module of their own, each a way in which a run can end.
const (
	passing  = "package p\nimport \"testing\"\nfunc TestGood(t *testing.T) { t.Log(\"chatter\") }\n"
	skipping = "package p\nimport \"testing\"\nfunc TestGood(*testing.T) {}\n" +
		"func TestA(t *testing.T) { t.Skip(\"no: moon\") }\nfunc TestB(t *testing.T) { t.Log(\"hm\"); t.Skip(\"no: moon\") }\n" +
		"func TestC(t *testing.T) { t.Run(\"sub\", func(t *testing.T) { t.SkipNow() }) }\n"
	failing = "package p\nimport \"testing\"\nfunc TestGood(t *testing.T) { t.Log(\"chatter\") }\n" +
		"func TestBad(t *testing.T) { t.Error(\"the cause\") }\n"
	panicking = "package p\nimport \"testing\"\nfunc TestBad(t *testing.T) { panic(\"the cause\") }\n"
	exiting   = "package p\nimport (\"os\"; \"testing\")\nfunc TestMain(*testing.M) { println(\"the cause\"); os.Exit(3) }\n"
	broken    = "package p\nimport \"testing\"\nfunc TestBad(t *testing.T) { theCause() }\n"
)

func TestReport(t *testing.T) {
	for _, test := range []struct {
		name, source string
		says         []string
		hides        []string
	}{
		{"passing", passing, []string{"ok  \texample.org/p", "1 passed, 0 failed, 0 skipped\n"}, []string{"chatter", "=== RUN", "PASS"}},
		{
			"skipping", skipping,
			[]string{"ok  \t", "SKIPPED 1: no reason given\nSKIPPED 2: no: moon\n2 passed, 0 failed, 3 skipped\n"},
			[]string{"hm"},
		},
		{"failing", failing, []string{"the cause", "--- FAIL: TestBad", "FAIL\texample.org/p", "1 passed, 1 failed, 0 skipped\n"}, []string{"chatter"}},
		{"panicking", panicking, []string{"panic: the cause", "FAIL\texample.org/p", "0 passed, 1 failed, 0 skipped\n"}, nil},
		{"exiting", exiting, []string{"the cause", "0 passed, 1 failed, 0 skipped\n"}, nil},
		{"broken", broken, []string{"undefined: theCause", "0 passed, 1 failed, 0 skipped\n"}, nil},
		{"empty", "package p\n", []string{"?   \texample.org/p\t[no test files]", "0 passed, 0 failed, 0 skipped\n"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := "p_test.go"
			if test.name == "empty" {
				file = "p.go"
			}
			for name, text := range map[string]string{"go.mod": "module example.org/p\n\ngo 1.26\n", file: test.source} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			run := exec.CommandContext(t.Context(), "go", "test", "-json", "-vet=off", "./...")
			run.Dir = dir
			run.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
			events, _ := run.Output() // its exit code is main's affair
			var out bytes.Buffer
			r := newReport(&out)
			if err := r.read(bytes.NewReader(events)); err != nil {
				t.Fatal(err)
			}
			r.summary()
			for _, text := range test.says {
				if !strings.Contains(out.String(), text) {
					t.Errorf("does not say %q:\n%s", text, out.String())
				}
			}
			for _, text := range test.hides {
				if strings.Contains(out.String(), text) {
					t.Errorf("says %q:\n%s", text, out.String())
				}
			}
		})
	}
}
