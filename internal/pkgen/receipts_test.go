package pkgen_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/bundle"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
	"github.com/edgeclm/edgeclm/internal/pkgen"
	"github.com/edgeclm/edgeclm/internal/receipt"
)

// plant is a PKG that has issued, and the medium.
type plant struct {
	fixture
	rows []bundle.Row // of the devices
}

func newPlant(t testing.TB, devices int) plant {
	t.Helper()
	p := plant{fixture: newFixture(t, devices)}
	p.rows = mustIssue(t, p.config, p.options, p.requests...).Rows
	return p
}

// takes writes the receipt of a device's bundle to a medium, as devagent does.
func (p plant) takes(t testing.TB, medium string, row bundle.Row, on receipt.Receipt) string {
	t.Helper()
	b := open(t, p.options.Medium, row, p.party)
	on.Time, on.Program = time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC), "devagent test"
	on.Provisioned = &receipt.Provisioned{Payload: b.Signed, Outcome: receipt.Installed}
	data, err := receipt.Sign(on, nil, b.Key, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	path, err := receipt.Write(keyfile.Files{}, filepath.Join(medium, receipt.DirName), data, b.Params)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func machine(n byte) receipt.Receipt { return receipt.Receipt{Installation: receipt.Installation{n}} }

// back takes media back and reconciles.
func back(t testing.TB, c pkgen.Config, media ...string) (*pkgen.TakenBack, *pkgen.Reconciled) {
	t.Helper()
	taken, r, err := takeBack(c, media...)
	if err != nil {
		t.Fatal(err)
	}
	return taken, r
}

func takeBack(c pkgen.Config, media ...string) (*pkgen.TakenBack, *pkgen.Reconciled, error) {
	book, err := pkgen.OpenReceipts(c, len(media) > 0)
	if err != nil {
		return nil, nil, err
	}
	taken, err := book.Take(context.Background(), media, nil)
	if err != nil {
		return nil, nil, errors.Join(err, book.Close())
	}
	return taken, book.Reconcile(taken.Refused), book.Close()
}

// state returns the state of an identity of a device.
func state(t testing.TB, r *pkgen.Reconciled, name string, generation uint32) pkgen.Standing {
	t.Helper()
	for _, s := range r.Identities {
		if s.Identity.Role == ibc.RoleDevice && s.Identity.Name == name && s.Identity.Generation == generation {
			return s
		}
	}
	t.Fatalf("%s is not listed", name)
	return pkgen.Standing{}
}

// Sticks come back one by one, in any order, and again.
func TestReceiptsComeBackOneByOne(t *testing.T) {
	p := newPlant(t, 3)
	first, second := t.TempDir(), t.TempDir()
	p.takes(t, first, p.rows[0], machine(1))
	p.takes(t, second, p.rows[1], machine(2))
	p.takes(t, second, p.rows[0], machine(1)) // signed anew: it says the same
	if _, r := back(t, p.config); r.Issued != 4 || r.Outstanding != 4 {
		t.Errorf("nothing came back, and %+v", r)
	}
	taken, r := back(t, p.config, first)
	if taken.New != 1 || r.Provisioned != 1 || r.Outstanding != 3 {
		t.Errorf("the first stick: %+v, %+v", taken, r)
	}
	for range 2 {
		_, r = back(t, p.config, second, first, second)
		if r.Provisioned != 2 || r.Outstanding != 2 || r.Duplicated != 0 || len(r.Unknown) != 0 {
			t.Errorf("both sticks: %+v", r)
		}
	}
	if s := state(t, r, p.requests[2].Name, 1); s.State != pkgen.StateOutstanding {
		t.Errorf("%+v", s)
	}
	if taken, _ := back(t, p.config, first, second); taken.New != 0 || taken.Known != 3 {
		t.Errorf("again: %+v", taken)
	}
	ledger, err := pkgen.VerifyDir(p.config.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := pkgen.VerifyReceipts(rand.Reader, p.config.Dir, ledger.Epochs()); err != nil || n != 3 {
		t.Errorf("%d verified, %v", n, err)
	}
}

// Take, cut at every file operation and run again, keeps every receipt once.
func TestReceiptsCutAnywhere(t *testing.T) {
	p := newPlant(t, 2)
	usb := t.TempDir()
	p.takes(t, usb, p.rows[0], machine(1))
	p.takes(t, usb, p.rows[1], machine(2))
	for name, mode := range modes() {
		t.Run(name, func(t *testing.T) {
			for cut := 1; ; cut += keyfiletest.Step {
				g := p.copy(t, t.TempDir())
				c := g.config
				layer := keyfiletest.New(cut, mode)
				c.Files = keyfile.On(layer)
				_, _, err := takeBack(c, usb)
				if !layer.Cut() {
					if err != nil || cut < 5 {
						t.Fatalf("uncut after %d operations: %v", cut-1, err)
					}
					return
				}
				if !errors.Is(err, keyfiletest.ErrCut) {
					t.Fatalf("cut at %d: error %v", cut, err)
				}
				taken, r := back(t, g.config, usb)
				if taken.New+taken.Known != 2 || r.Provisioned != 2 || len(r.Unknown) != 0 {
					t.Fatalf("cut at %d, then: %+v, %+v", cut, taken, r)
				}
				if taken, _ := back(t, g.config, usb); taken.Known != 2 {
					t.Fatalf("cut at %d, twice: %+v", cut, taken)
				}
				noTemps(t, g.config.Dir)
			}
		})
	}
}

// Attack: an earlier receipt comes again, on another stick and under another
// name, and after the device got its next key, to make up for one that is not
// there.
func TestAttackReplayedReceipt(t *testing.T) {
	p := newPlant(t, 2)
	usb := t.TempDir()
	path := p.takes(t, usb, p.rows[0], machine(1))
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"provisioned-dev-" + p.requests[1].Name + ".e1.g1.0011223344556677", "x"} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), name+receipt.Suffix), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	taken, r := back(t, p.config, usb)
	if taken.New != 1 || taken.Known != 2 || r.Provisioned != 1 || state(t, r, p.requests[1].Name, 1).State != pkgen.StateOutstanding {
		t.Errorf("copies: %+v, %+v", taken, r)
	}
	next := p.requests[0]
	next.Generation = 2
	mustIssue(t, p.config, p.options, next)
	_, r = back(t, p.config, usb)
	if before, now := state(t, r, next.Name, 1), state(t, r, next.Name, 2); before.State != pkgen.StateSuperseded || now.State != pkgen.StateOutstanding {
		t.Errorf("%+v\n%+v", before, now)
	}
	if r.Superseded != 1 || r.SupersededOutstanding != 0 {
		t.Errorf("%+v", r)
	}
}

// Attack: the stick was copied, and a bundle installed on a machine of the
// attacker's too; or the card of a device was copied after it was provisioned.
func TestAttackCopiedStick(t *testing.T) {
	p := newPlant(t, 4)
	usb := t.TempDir()
	on := func(installation, board byte) receipt.Receipt {
		return receipt.Receipt{Installation: receipt.Installation{installation}, Board: bundle.Hash{board}}
	}
	p.takes(t, usb, p.rows[0], on(1, 0))
	p.takes(t, usb, p.rows[0], on(2, 0))
	p.takes(t, usb, p.rows[1], on(3, 1))
	p.takes(t, usb, p.rows[1], on(3, 2))
	p.takes(t, usb, p.rows[2], on(4, 1)) // the serial number was not readable once
	p.takes(t, usb, p.rows[2], on(4, 0))
	p.takes(t, usb, p.rows[3], on(1, 0)) // another bundle on the first machine is none of it
	_, r := back(t, p.config, usb)
	for i, want := range []struct {
		state pkgen.State
		note  string
	}{
		{pkgen.StateDuplicated, "installed on 2 machines"}, {pkgen.StateDuplicated, "one installation on 2 machines"},
		{pkgen.StateProvisioned, ""}, {pkgen.StateProvisioned, ""},
	} {
		if s := state(t, r, p.requests[i].Name, 1); s.State != want.state || !strings.HasPrefix(s.Note, want.note) {
			t.Errorf("device %d: %+v", i, s)
		}
	}
	if r.Duplicated != 2 || len(r.Unknown) != 0 {
		t.Errorf("%+v", r)
	}
}

// Attack: whoever has a copy of the PKG issues with it, behind its ledger. The
// receipts tell: they are signed by identities of this PKG, of which the ledger
// knows nothing, or by a known one for a bundle that it does not know.
func TestAttackIssuedBehindTheLedger(t *testing.T) {
	p := newPlant(t, 1)
	thief := plant{fixture: p.copy(t, t.TempDir())}
	usb := t.TempDir()
	secret := device("backdoor", p.party)
	again := p.requests[0]
	again.Address = "192.0.2.66:5684"
	for _, row := range mustIssue(t, thief.config, thief.options, secret, again).Rows {
		thief.takes(t, usb, row, machine(7))
	}
	taken, r := back(t, p.config, usb)
	if taken.New != 2 || len(taken.Refused) != 0 || len(r.Unknown) != 2 || r.Provisioned != 0 {
		t.Fatalf("%+v, %+v", taken, r)
	}
	text := fmt.Sprint(r.Unknown)
	if !strings.Contains(text, "no issue of this identity") || !strings.Contains(text, "no issue of the bundle") {
		t.Error(text)
	}
	// Without the stick, it is remembered.
	if _, r := back(t, p.config); len(r.Unknown) != 2 {
		t.Errorf("forgotten: %+v", r)
	}
}

// A CLM's receipt counts for the devices of the ledger that it lists; one for a
// manifest that this ledger never signed is an alarm.
func TestCommissionedReceipts(t *testing.T) {
	p := newPlant(t, 2)
	clm := newParty(t)
	row := mustIssue(t, p.config, p.options, pkgen.Request{Role: ibc.RoleCLM, Name: "clm-2", Recipient: &clm.to}).Rows[0]
	key := open(t, p.options.Medium, row, clm).Key
	ledger, err := pkgen.ReadPublic(p.config.Dir)
	if err != nil {
		t.Fatal(err)
	}
	write := func(head bundle.LedgerHead, list ...receipt.Row) string {
		t.Helper()
		r := machine(5)
		r.Time, r.Program = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), "clmctl test"
		r.Commissioned = &receipt.Commissioned{Manifest: bundle.Hash{1}, Ledger: head}
		data, err := receipt.Sign(r, list, key, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "a"+receipt.Suffix)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	listed := receipt.Row{Identity: p.rows[0].Identity(), LedgerIndex: p.rows[0].LedgerIndex}
	taken, r := back(t, p.config, write(ledger.Head(), listed))
	if s := state(t, r, listed.Identity.Name, 1); taken.New != 1 || r.Commissioned != 1 || s.State != pkgen.StateOutstanding || len(s.By) != 1 || s.By[0] != row.Identity() {
		t.Errorf("%+v, %+v", taken, s)
	}
	p.takes(t, p.options.Medium, p.rows[0], machine(1))
	if _, r = back(t, p.config, p.options.Medium); state(t, r, listed.Identity.Name, 1).State != pkgen.StateCommissioned || len(r.Unknown) != 0 {
		t.Errorf("%+v", r)
	}
	strange := listed
	strange.LedgerIndex++
	other := ledger.Head()
	other.Hash[0] ^= 1
	for name, path := range map[string]string{"another entry": write(ledger.Head(), strange), "another ledger": write(other, listed)} {
		g := p.copy(t, t.TempDir())
		if _, r := back(t, g.config, path); len(r.Unknown) != 1 || r.Unknown[0].Kind != receipt.KindCommissioned {
			t.Errorf("%s: %+v", name, r.Unknown)
		}
	}
}

// What is no receipt of this PKG is refused by name, and the rest is taken.
func TestRefusedReceiptsAreNamed(t *testing.T) {
	p := newPlant(t, 1)
	usb := t.TempDir()
	good := p.takes(t, usb, p.rows[0], machine(1))
	master, err := ibc.Setup(rand.Reader, 1)
	if err != nil {
		t.Fatal(err)
	}
	key, err := master.Extract(p.rows[0].Identity())
	if err != nil {
		t.Fatal(err)
	}
	r := machine(1)
	r.Program, r.Provisioned = "devagent test", &receipt.Provisioned{Outcome: receipt.Installed}
	foreign, err := receipt.Sign(r, nil, key, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(good)
	forged := bytes.Replace(data, []byte("devagent test"), []byte("devagent tost"), 1)
	for name, content := range map[string][]byte{
		"torn" + receipt.Suffix: data[:200], "empty" + receipt.Suffix: nil, "foreign" + receipt.Suffix: foreign, "FORGED.RECEIPT.JSON": forged,
		"._companion" + receipt.Suffix: []byte("of another system"), "notes.txt": []byte("no receipt"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		taken, r := back(t, p.config, usb)
		if len(taken.Refused) != 4 || len(r.Unknown) != 4 || r.Provisioned != 1 {
			t.Errorf("%+v", taken)
		}
	}
	if _, r := back(t, p.config); len(r.Unknown) != 0 {
		t.Errorf("refused receipts were kept: %+v", r.Unknown)
	}
	if _, err := pkgen.VerifyReceipts(rand.Reader, usb, nil); err == nil {
		t.Error("verified without parameters")
	}
}

// Whatever byte of what was kept changes, it is noticed; it is never read as
// something else.
func TestKeptReceiptsShowChanges(t *testing.T) {
	p := newPlant(t, 1)
	usb := t.TempDir()
	p.takes(t, usb, p.rows[0], machine(1))
	_, want := back(t, p.config, usb)
	path := filepath.Join(p.config.Dir, pkgen.ReceiptsDir, "000001.jsonl")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(data); at += keyfiletest.Step {
		changed := bytes.Clone(data)
		changed[at] ^= 1
		if err := os.WriteFile(path, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		_, r, err := takeBack(p.config)
		if err == nil && (fmt.Sprint(r.Identities) != fmt.Sprint(want.Identities) || bytes.Equal(bytes.TrimSpace(changed), bytes.TrimSpace(data))) {
			t.Fatalf("byte %d: read as %+v", at, r)
		}
		if err != nil && !errors.Is(err, pkgen.ErrReceipts) {
			t.Fatalf("byte %d: %v", at, err)
		}
	}
	// Somebody who computes the hash anew is found out by the signature.
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	ledger, err := pkgen.ReadPublic(p.config.Dir)
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := bytes.Cut(bytes.TrimSpace(data), []byte(" "))
	line = bytes.Replace(line, []byte("devagent test"), []byte("devagent tost"), 1)
	s, err := receipt.Parse(line)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, fmt.Appendf(nil, "%s %s\n", s.File, line), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := pkgen.VerifyReceipts(rand.Reader, p.config.Dir, ledger.Epochs()); !errors.Is(err, ibc.ErrSignature) {
		t.Errorf("verified: %v", err)
	}
}

// A long run that is interrupted keeps what it has verified.
func TestTakeInterrupted(t *testing.T) {
	p := newPlant(t, 2)
	usb := t.TempDir()
	p.takes(t, usb, p.rows[0], machine(1))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	book, err := pkgen.OpenReceipts(p.config, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := book.Take(ctx, []string{usb}, nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := book.Close(); err != nil {
		t.Fatal(err)
	}
	if taken, _ := back(t, p.config, usb); taken.New != 1 {
		t.Errorf("%+v", taken)
	}
}
