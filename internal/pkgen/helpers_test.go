package pkgen_test

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

// workFactor keeps scrypt fast in tests.
const workFactor = 4

var passphrase = []byte("hove boni soro xehe fohi vobu pofe kico")

func config(dir string) pkgen.Config {
	c := pkgen.Config{
		Dir: dir, WorkFactor: workFactor, Files: keyfile.On(keyfiletest.New(0, keyfiletest.Kill)),
		Now:    func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) },
		Random: rand.NewChaCha8([32]byte{1}),
		Warn:   func(string) {},
	}
	return c.WithFastRecovery()
}

// initPKG makes a PKG in a new directory.
func initPKG(t testing.TB) pkgen.Config {
	t.Helper()
	c := config(filepath.Join(t.TempDir(), "pkg"))
	if _, err := pkgen.Init(c, passphrase, pkgen.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	return c
}

// party is a recipient that can open its bundle.
type party struct {
	opener bundle.Opener
	to     bundle.Recipient
}

func newParty(t testing.TB) party {
	t.Helper()
	i, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	o, r, err := bundle.ParseOpener([]byte(i.String()))
	if err != nil {
		t.Fatal(err)
	}
	return party{o, r}
}

// issue opens the PKG, issues and closes it.
func issue(c pkgen.Config, o pkgen.IssueOptions, requests ...pkgen.Request) (*pkgen.Issued, error) {
	p, err := pkgen.Open(c, passphrase)
	if err != nil {
		return nil, err
	}
	issued, err := p.Issue(context.Background(), requests, o)
	return issued, errors.Join(err, p.Close())
}

func mustIssue(t testing.TB, c pkgen.Config, o pkgen.IssueOptions, requests ...pkgen.Request) *pkgen.Issued {
	t.Helper()
	issued, err := issue(c, o, requests...)
	if err != nil {
		t.Fatal(err)
	}
	return issued
}

// withCLM issues the CLM clm-1 and returns options for devices that listen to it.
func withCLM(t testing.TB, c pkgen.Config) pkgen.IssueOptions {
	t.Helper()
	o := pkgen.IssueOptions{Medium: filepath.Join(t.TempDir(), "usb")}
	clm := newParty(t)
	mustIssue(t, c, o, pkgen.Request{Role: ibc.RoleCLM, Name: "clm-1", Recipient: &clm.to, Address: "clm.example:5684"})
	o.CLMs = []string{"clm-1"}
	return o
}

func device(name string, p party) pkgen.Request {
	return pkgen.Request{Role: ibc.RoleDevice, Name: name, Recipient: &p.to}
}

// open opens the bundle of a row.
func open(t testing.TB, medium string, r bundle.Row, p party) *bundle.Bundle {
	t.Helper()
	sealed, err := os.ReadFile(filepath.Join(medium, r.File))
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Open(sealed, p.opener)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// verify checks directory and medium, and that no temporary file is left.
func verify(t testing.TB, c pkgen.Config, medium string) (*pkgen.Ledger, *bundle.Manifest) {
	t.Helper()
	ledger, err := pkgen.VerifyDir(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := pkgen.VerifyMedium(medium, ledger.Params, ledger)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{c.Dir, medium} {
		noTemps(t, dir)
	}
	return ledger, m
}

func noTemps(t testing.TB, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if strings.Contains(filepath.Base(path), ".tmp-") {
			t.Errorf("left behind: %s", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// snapshot is the content of all files below some directories.
func snapshot(t testing.TB, dirs ...string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || d.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			files[path] = string(data)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// copyDir copies a directory with its modes.
func copyDir(t testing.TB, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(to, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chmod(path, keyfile.DirPerm)
		}
		return os.Chmod(path, keyfile.SecretPerm)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func edit(t testing.TB, path, old, new string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(data), old, new, 1)
	if changed == string(data) {
		t.Fatalf("%q is not in %s", old, path)
	}
	if err := os.WriteFile(path, []byte(changed), keyfile.SecretPerm); err != nil {
		t.Fatal(err)
	}
}
