package pkgen_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/fleet"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

func TestInit(t *testing.T) {
	c := initPKG(t)
	ledger, err := pkgen.VerifyDir(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(ledger.Entries) != 1 || ledger.Lab() || ledger.Recovery() == (pkgen.Hash{}) {
		t.Errorf("ledger %+v", ledger.Entries)
	}
	info, err := os.Stat(c.Dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		want := os.FileMode(0o600)
		if e.Name() == pkgen.ParamsFile {
			want = 0o644
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %04o, want %04o", e.Name(), info.Mode().Perm(), want)
		}
	}
	p, err := pkgen.Open(c, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	if p.Params().ID() != ledger.Params.ID() {
		t.Error("params.json is not that of the master secret")
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, c.Dir)
	if _, err := pkgen.Init(c, passphrase, pkgen.InitOptions{}); !errors.Is(err, pkgen.ErrExists) {
		t.Errorf("second init: error %v, want ErrExists", err)
	}
	if err := os.Remove(filepath.Join(c.Dir, pkgen.RecoveryFile)); err != nil { // kept elsewhere
		t.Fatal(err)
	}
	if _, err := pkgen.VerifyDir(c.Dir); err != nil {
		t.Errorf("without the recovery key: %v", err)
	}
	delete(before, filepath.Join(c.Dir, pkgen.RecoveryFile))
	if !reflect.DeepEqual(snapshot(t, c.Dir), before) {
		t.Error("a refused init changed the directory")
	}
}

func TestInitElsewhereForRecoveryKey(t *testing.T) {
	dir := t.TempDir()
	recovery := filepath.Join(dir, "recovery")
	c := config(filepath.Join(dir, "pkg"))
	if err := os.WriteFile(recovery, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := pkgen.Init(c, passphrase, pkgen.InitOptions{RecoveryFile: recovery}); !errors.Is(err, keyfile.ErrExists) {
		t.Errorf("error %v, want ErrExists", err)
	}
	if err := os.Remove(recovery); err != nil {
		t.Fatal(err)
	}
	if _, err := pkgen.Init(c, passphrase, pkgen.InitOptions{RecoveryFile: recovery}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(c.Dir, pkgen.RecoveryFile)); !errors.Is(err, os.ErrNotExist) {
		t.Error("the recovery key is in the directory too")
	}
	if data, err := keyfile.ReadSecret(recovery, 1<<16); err != nil || !bytes.HasPrefix(data, []byte("age-encryption.org/v1\n")) {
		t.Errorf("recovery key: %v", err)
	}
}

// A ledger with issues is never written over, though its master secret is away.
func TestInitSparesALedgerInUse(t *testing.T) {
	c := initPKG(t)
	withCLM(t, c)
	if err := os.Remove(filepath.Join(c.Dir, pkgen.MasterFile)); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, c.Dir)
	if _, err := pkgen.Init(c, passphrase, pkgen.InitOptions{}); !errors.Is(err, pkgen.ErrExists) {
		t.Errorf("error %v, want ErrExists", err)
	}
	edit(t, filepath.Join(c.Dir, pkgen.LedgerFile), `"index":2`, `"index":3`)
	if _, err := pkgen.Init(c, passphrase, pkgen.InitOptions{}); !errors.Is(err, pkgen.ErrExists) {
		t.Errorf("damaged ledger: error %v, want ErrExists", err)
	}
	edit(t, filepath.Join(c.Dir, pkgen.LedgerFile), `"index":3`, `"index":2`)
	if !reflect.DeepEqual(snapshot(t, c.Dir), before) {
		t.Error("a refused init changed the directory")
	}
}

func TestOpenRefuses(t *testing.T) {
	c := initPKG(t)
	other := config(filepath.Join(t.TempDir(), "pkg"))
	other.Random = bytes.NewReader(bytes.Repeat([]byte{0x42}, 4096))
	if _, err := pkgen.Init(other, passphrase, pkgen.InitOptions{}); err != nil {
		t.Fatal(err)
	}
	swap := func(name string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			data, err := os.ReadFile(filepath.Join(other.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tc := range []struct {
		name       string
		spoil      func(t *testing.T, dir string)
		passphrase string
		cause      error
	}{
		{"wrong passphrase", func(*testing.T, string) {}, "wrong", pkgen.ErrPassphrase},
		{"no PKG", func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, pkgen.MasterFile)); err != nil {
				t.Fatal(err)
			}
		}, string(passphrase), pkgen.ErrNoPKG},
		{"master secret readable by others", func(t *testing.T, dir string) {
			if err := os.Chmod(filepath.Join(dir, pkgen.MasterFile), 0o640); err != nil {
				t.Fatal(err)
			}
		}, string(passphrase), keyfile.ErrPermissions},
		{"another PKG's parameters", swap(pkgen.ParamsFile), string(passphrase), pkgen.ErrForeign},
		{"another PKG's ledger", swap(pkgen.LedgerFile), string(passphrase), pkgen.ErrForeign},
		{"another PKG's parameters and ledger", func(t *testing.T, dir string) {
			swap(pkgen.ParamsFile)(t, dir)
			swap(pkgen.LedgerFile)(t, dir)
		}, string(passphrase), pkgen.ErrForeign},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := c
			d.Dir = filepath.Join(t.TempDir(), "pkg")
			copyDir(t, c.Dir, d.Dir)
			tc.spoil(t, d.Dir)
			p, err := pkgen.Open(d, []byte(tc.passphrase))
			if p != nil || !errors.Is(err, tc.cause) {
				t.Errorf("error %v, want %v", err, tc.cause)
			}
		})
	}
}

func TestOpenTakesTheLock(t *testing.T) {
	c := initPKG(t)
	p, err := pkgen.Open(c, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pkgen.Open(c, passphrase); !errors.Is(err, keyfile.ErrLocked) {
		t.Errorf("error %v, want ErrLocked", err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := pkgen.Open(c, []byte("wrong")); !errors.Is(err, pkgen.ErrPassphrase) {
		t.Errorf("error %v, want ErrPassphrase", err)
	}
	p, err = pkgen.Open(c, passphrase) // a failed open holds no lock
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestIssue(t *testing.T) {
	c := initPKG(t)
	o := withCLM(t, c)
	alice := newParty(t)
	r := device("plc:1", alice)
	r.Address, r.Labels = "10.0.0.1:5684", map[string]string{"line": "3"}
	issued := mustIssue(t, c, o, r)
	ledger, m := verify(t, c, o.Medium)
	if len(ledger.Entries) != 3 || len(m.Rows) != 2 || issued.Ledger != ledger.Head() || m.Ledger != ledger.Head() {
		t.Fatalf("%d entries, %d rows, heads %v %v %v", len(ledger.Entries), len(m.Rows), issued.Ledger, m.Ledger, ledger.Head())
	}
	row := m.Rows[1]
	if row.File != "dev-plc=1.e1.g1.bundle.age" || row.Address != r.Address || row.LedgerIndex != 3 || row.Labels["line"] != "3" {
		t.Errorf("row %+v", row)
	}
	b := open(t, o.Medium, row, alice)
	if b.HeldTo(ledger.Params.ID()) != nil || b.Address != r.Address || b.RecoveryHash != ledger.Recovery() {
		t.Errorf("bundle %+v", b)
	}
	if want := []bundle.Peer{{Name: "clm-1", Epoch: 1, Generation: 1}}; !reflect.DeepEqual(b.Peers, want) {
		t.Errorf("peers %v, want %v", b.Peers, want)
	}
	if want := []string{"clm.example:5684"}; !reflect.DeepEqual(b.CLMAddresses, want) {
		t.Errorf("CLM addresses %v, want %v", b.CLMAddresses, want)
	}
	if want := fleet.DefaultNames("plc:1"); !reflect.DeepEqual(b.Names, want) {
		t.Errorf("names %v, want %v", b.Names, want)
	}
	if bytes.Contains([]byte(snapshot(t, c.Dir)[filepath.Join(c.Dir, pkgen.LedgerFile)]), []byte("secret")) {
		t.Error("the ledger has a secret")
	}
}

// Issuing again: the same to the same recipient adds nothing to the ledger;
// what changes is recorded; what is not given stays.
func TestIssueAgain(t *testing.T) {
	c := initPKG(t)
	o := withCLM(t, c)
	alice := newParty(t)
	full := device("plc-1", alice)
	full.Address, full.Labels, full.Names = "10.0.0.1:5684", map[string]string{"line": "3"}, []fleet.Name{{Kind: fleet.KindCN, Value: "press"}}
	mustIssue(t, c, o, full)
	for _, tc := range []struct {
		name       string
		change     func(*pkgen.Request)
		entries    int
		generation uint32
		address    string
	}{
		{"the same", func(*pkgen.Request) {}, 3, 1, "10.0.0.1:5684"},
		{"nothing given", func(r *pkgen.Request) { *r = device("plc-1", alice) }, 3, 1, "10.0.0.1:5684"},
		{"another address", func(r *pkgen.Request) { r.Address = "10.0.0.2:5684" }, 4, 1, "10.0.0.2:5684"},
		{"next generation", func(r *pkgen.Request) { *r = device("plc-1", alice); r.Generation = 2 }, 5, 2, "10.0.0.2:5684"},
		{"the present generation", func(r *pkgen.Request) { *r = device("plc-1", alice) }, 5, 2, "10.0.0.2:5684"},
	} {
		r := full
		tc.change(&r)
		mustIssue(t, c, o, r)
		ledger, m := verify(t, c, o.Medium)
		row := m.Rows[1]
		if len(ledger.Entries) != tc.entries || row.Generation != tc.generation || row.Address != tc.address || row.Names[0].Value != "press" || row.Labels["line"] != "3" {
			t.Errorf("%s: %d entries, row %+v", tc.name, len(ledger.Entries), row)
		}
		if b := open(t, o.Medium, row, alice); b.Identity.Generation != tc.generation {
			t.Errorf("%s: bundle of %s", tc.name, b.Identity)
		}
	}
}

// The floor of a CLM is its latest identity.
func TestFloorFollowsTheCLM(t *testing.T) {
	c := initPKG(t)
	o := withCLM(t, c)
	clm2, alice := newParty(t), newParty(t)
	mustIssue(t, c, pkgen.IssueOptions{Medium: o.Medium}, pkgen.Request{Role: ibc.RoleCLM, Name: "clm-1", Generation: 5, Recipient: &clm2.to})
	issued := mustIssue(t, c, o, device("plc-1", alice))
	b := open(t, o.Medium, issued.Rows[0], alice)
	if want := (bundle.Peer{Name: "clm-1", Epoch: 1, Generation: 5}); b.Peers[0] != want {
		t.Errorf("peer %v, want %v", b.Peers[0], want)
	}
}

func TestIssueToPassphrase(t *testing.T) {
	c := initPKG(t)
	o := withCLM(t, c)
	o.Passphrase = []byte("1234")
	request := pkgen.Request{Role: ibc.RoleDevice, Name: "plc-1"}
	issued := mustIssue(t, c, o, request)
	opener, err := bundle.PassphraseOpener([]byte("1234"))
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, o.Medium, issued.Rows[0], party{opener: opener})
	mustIssue(t, c, o, request)
	if ledger, _ := verify(t, c, o.Medium); len(ledger.Entries) != 3 {
		t.Errorf("%d entries after the same again, want 3", len(ledger.Entries))
	}
	o.Passphrase = []byte("1235")
	if _, err := issue(c, o, request); !errors.Is(err, pkgen.ErrOtherRecipient) {
		t.Errorf("another passphrase: error %v, want ErrOtherRecipient", err)
	}
	// The same passphrase of another device cannot be recognised by its hash.
	o.Passphrase = []byte("1234")
	request.Name = "plc-2"
	second := mustIssue(t, c, o, request)
	if open(t, o.Medium, second.Rows[0], party{opener: opener}).Recipient == b.Recipient {
		t.Error("two devices with one passphrase have one recipient hash")
	}
}

// What is refused is refused before anything is written.
func TestIssueRefuses(t *testing.T) {
	c := initPKG(t)
	o := withCLM(t, c)
	alice, bob := newParty(t), newParty(t)
	mustIssue(t, c, o, device("plc-1", alice))
	g2 := device("plc-2", alice)
	g2.Generation = 2
	mustIssue(t, c, o, g2)
	none := pkgen.IssueOptions{Medium: o.Medium}
	unknown := o
	unknown.CLMs = []string{"clm-1", "clm-9"}
	twice := o
	twice.CLMs = []string{"clm-1", "clm-1"}
	with := func(r pkgen.Request, change func(*pkgen.Request)) pkgen.Request { change(&r); return r }
	fresh := device("plc-9", alice)
	for _, tc := range []struct {
		name     string
		options  pkgen.IssueOptions
		requests []pkgen.Request
		cause    error
	}{
		{"nothing", o, nil, pkgen.ErrRequest},
		{"another recipient", o, []pkgen.Request{fresh, device("plc-1", bob)}, pkgen.ErrOtherRecipient},
		{"an earlier generation", o, []pkgen.Request{fresh, with(g2, func(r *pkgen.Request) { r.Generation = 1 })}, pkgen.ErrSuperseded},
		{"a CLM that was never issued", unknown, []pkgen.Request{fresh}, pkgen.ErrUnknownCLM},
		{"a CLM twice", twice, []pkgen.Request{fresh}, bundle.ErrFormat},
		{"no CLM", none, []pkgen.Request{fresh}, pkgen.ErrRequest},
		{"no recipient", o, []pkgen.Request{fresh, {Role: ibc.RoleDevice, Name: "plc-8"}}, pkgen.ErrRequest},
		{"a name twice", o, []pkgen.Request{fresh, fresh}, pkgen.ErrRequest},
		{"a wrong name", o, []pkgen.Request{fresh, device("PLC", alice)}, ibc.ErrIdentity},
		{"a wrong role", o, []pkgen.Request{with(fresh, func(r *pkgen.Request) { r.Role = "ca" })}, ibc.ErrIdentity},
		{"a wrong address", o, []pkgen.Request{fresh, with(device("plc-8", alice), func(r *pkgen.Request) { r.Address = "x" })}, bundle.ErrFormat},
		{"a wrong label", o, []pkgen.Request{with(fresh, func(r *pkgen.Request) { r.Labels = map[string]string{"": ""} })}, fleet.ErrLabel},
		{"a CLM with names", none, []pkgen.Request{{Role: ibc.RoleCLM, Name: "clm-2", Recipient: &alice.to, Names: fleet.DefaultNames("x")}}, pkgen.ErrRequest},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := snapshot(t, c.Dir, o.Medium)
			issued, err := issue(c, tc.options, tc.requests...)
			if issued != nil || !errors.Is(err, tc.cause) {
				t.Errorf("error %v, want %v", err, tc.cause)
			}
			if !reflect.DeepEqual(snapshot(t, c.Dir, o.Medium), before) {
				t.Error("something was written")
			}
		})
	}
	r := fresh
	r.Where, r.Address = "devices.csv: line 7", "x"
	if _, err := issue(c, o, r); err == nil || !strings.HasPrefix(err.Error(), "devices.csv: line 7: plc-9: ") {
		t.Errorf("error %v does not say where", err)
	}
}

func TestCancelledRunListsWhatItWrote(t *testing.T) {
	c := initPKG(t)
	o := withCLM(t, c)
	alice := newParty(t)
	var requests []pkgen.Request
	for _, name := range manyNames(40) {
		requests = append(requests, device(name, alice))
	}
	ctx, cancel := context.WithCancel(context.Background())
	o.Progress = func(done, total, _ int) {
		if total != 40 {
			t.Errorf("total %d", total)
		}
		if done == 5 {
			cancel()
		}
	}
	p, err := pkgen.Open(c, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := p.Issue(ctx, requests, o)
	if !errors.Is(err, context.Canceled) || issued == nil || len(issued.Rows) == 0 || len(issued.Rows) == 40 {
		t.Fatalf("issued %v, error %v", issued, err)
	}
	// The same PKG goes on with another run.
	o.Progress = nil
	if _, err := p.Issue(context.Background(), requests, o); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if ledger, m := verify(t, c, o.Medium); len(ledger.Entries) != 42 || len(m.Rows) != 41 {
		t.Errorf("%d entries, %d rows", len(ledger.Entries), len(m.Rows))
	}
}
