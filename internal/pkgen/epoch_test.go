package pkgen_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeclm/edgeclm/internal/hashlog"
	"github.com/edgeclm/edgeclm/internal/ibc"
	"github.com/edgeclm/edgeclm/internal/keyfile"
	"github.com/edgeclm/edgeclm/internal/keyfile/keyfiletest"
	"github.com/edgeclm/edgeclm/internal/pkgen"
)

var laterPassphrase = []byte("battery staple")

// newEpoch begins an epoch with a passphrase of its own.
func newEpoch(c pkgen.Config, passphrase []byte) error {
	p, err := pkgen.Open(c, passphrase)
	if err != nil {
		return err
	}
	return errors.Join(p.NewEpoch(pkgen.EpochOptions{Passphrase: laterPassphrase}), p.Close())
}

func mustBegin(t testing.TB, c pkgen.Config, passphrase []byte) {
	t.Helper()
	if err := newEpoch(c, passphrase); err != nil {
		t.Fatal(err)
	}
}

// issueLater is issue after mustBegin.
func issueLater(c pkgen.Config, o pkgen.IssueOptions, requests ...pkgen.Request) (*pkgen.Issued, error) {
	p, err := pkgen.Open(c, laterPassphrase)
	if err != nil {
		return nil, err
	}
	issued, err := p.Issue(context.Background(), requests, o)
	return issued, errors.Join(err, p.Close())
}

// laterCLM issues the CLM again.
func laterCLM(t testing.TB, c pkgen.Config, o pkgen.IssueOptions) {
	t.Helper()
	clm := newParty(t)
	o.CLMs = nil
	if _, err := issueLater(c, o, pkgen.Request{Role: ibc.RoleCLM, Name: "clm-1", Recipient: &clm.to}); err != nil {
		t.Fatal(err)
	}
}

// The new epoch's bundles lead on from the old one, its manifest goes on where
// the old one ended, and the ledger holds under the parameters of either.
func TestNewEpoch(t *testing.T) {
	c := initPKG(t)
	o := withCLM(t, c)
	one, two := newParty(t), newParty(t)
	mustIssue(t, c, o, device("plc-1", one), device("plc-2", two))
	first, err := pkgen.ReadParams(filepath.Join(c.Dir, pkgen.ParamsFile))
	if err != nil {
		t.Fatal(err)
	}
	oldMaster, err := os.ReadFile(filepath.Join(c.Dir, pkgen.MasterFile))
	if err != nil {
		t.Fatal(err)
	}
	mustBegin(t, c, passphrase)

	if _, err := pkgen.Open(c, passphrase); !errors.Is(err, pkgen.ErrPassphrase) {
		t.Errorf("opened with the passphrase before: %v", err)
	}
	if now, err := os.ReadFile(filepath.Join(c.Dir, pkgen.MasterFile)); err != nil || bytes.Equal(now, oldMaster) {
		t.Errorf("the master secret is the one before: %v", err)
	}
	if _, err := issueLater(c, o, device("plc-1", one)); !errors.Is(err, pkgen.ErrEarlierEpoch) {
		t.Errorf("a device before its CLM: %v", err)
	}
	laterCLM(t, c, o)
	if _, err := issueLater(c, o, device("plc-1", one)); err != nil {
		t.Fatal(err)
	}
	ledger, m := verify(t, c, o.Medium)
	if ledger.Params.Epoch() != 2 || len(ledger.Epochs()) != 2 || !ledger.Epochs()[0].Equal(first) {
		t.Fatalf("epochs %v", ledger.Epochs())
	}
	if m.Params.Epoch() != 2 || len(m.Rows) != 3 {
		t.Fatalf("manifest of epoch %d with %d rows", m.Params.Epoch(), len(m.Rows))
	}
	for i, want := range []string{"clm/clm-1/e2.g1", "dev/plc-1/e2.g1", "dev/plc-2/e1.g1"} {
		if got := m.Rows[i].Identity().String(); got != "edgeclm/v1/"+want {
			t.Errorf("row %d is %s", i+1, got)
		}
	}
	b := open(t, o.Medium, m.Rows[1], one)
	if err := b.Follows(first); err != nil {
		t.Error(err)
	}
	if len(b.Peers) != 1 || b.Peers[0].Epoch != 2 {
		t.Errorf("peers %v", b.Peers)
	}
	for _, params := range ledger.Epochs() {
		if _, err := pkgen.ReadLedger(filepath.Join(c.Dir, pkgen.LedgerFile), params); err != nil {
			t.Errorf("under the parameters of epoch %d: %v", params.Epoch(), err)
		}
	}
	stranger := initPKG(t)
	if _, err := pkgen.ReadLedger(filepath.Join(stranger.Dir, pkgen.LedgerFile), first); err != nil && !errors.Is(err, pkgen.ErrForeign) {
		t.Errorf("another PKG's ledger: %v", err)
	}
}

// Every epoch's statement is in the bundles, so that a device that slept through
// some follows all the same.
func TestSeveralEpochs(t *testing.T) {
	c := initPKG(t)
	o := withCLM(t, c)
	first, err := pkgen.ReadParams(filepath.Join(c.Dir, pkgen.ParamsFile))
	if err != nil {
		t.Fatal(err)
	}
	mustBegin(t, c, passphrase)
	mustBegin(t, c, laterPassphrase)
	mustBegin(t, c, laterPassphrase)
	one := newParty(t)
	laterCLM(t, c, o)
	issued, err := issueLater(c, o, device("plc-1", one))
	if err != nil {
		t.Fatal(err)
	}
	b := open(t, o.Medium, issued.Rows[0], one)
	if b.Identity.Epoch != 4 || len(b.Epochs) != 3 {
		t.Fatalf("%s with %d statements", b.Identity, len(b.Epochs))
	}
	if err := b.Follows(first); err != nil {
		t.Error(err)
	}
	verify(t, c, o.Medium)
}

// NewEpoch, cut at every file operation: the old epoch is whole, or the new one
// after the next run; and a run after that begins none but the second epoch.
func TestNewEpochCutAnywhere(t *testing.T) {
	base := initPKG(t)
	withCLM(t, base)
	for name, mode := range modes() {
		t.Run(name, func(t *testing.T) {
			for cut := 1; ; cut += keyfiletest.Step {
				c := base
				c.Dir = filepath.Join(t.TempDir(), "pkg")
				copyDir(t, base.Dir, c.Dir)
				layer := keyfiletest.New(cut, mode)
				c.Files = keyfile.On(layer)
				err := newEpoch(c, passphrase)
				c.Files = base.Files
				if !layer.Cut() {
					if err != nil || cut < 20 {
						t.Fatalf("uncut after %d operations: %v", cut-1, err)
					}
					checkEpoch2(t, c)
					return
				}
				if !errors.Is(err, keyfiletest.ErrCut) {
					t.Fatalf("cut at %d: error %v", cut, err)
				}
				ledger, finished, err := pkgen.FinishEpoch(c)
				if err != nil {
					t.Fatalf("cut at %d, finished: %v", cut, err)
				}
				if begun := ledger.Params.Epoch() == 2; !begun {
					if finished {
						t.Fatalf("cut at %d: finished, but of epoch %d", cut, ledger.Params.Epoch())
					}
					mustBegin(t, c, passphrase)
				}
				checkEpoch2(t, c)
			}
		})
	}
}

// checkEpoch2 demands that a PKG is wholly in its second epoch.
func checkEpoch2(t *testing.T, c pkgen.Config) {
	t.Helper()
	ledger, err := pkgen.VerifyDir(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(ledger.Epochs()) != 2 {
		t.Fatalf("%d epochs", len(ledger.Epochs()))
	}
	p, err := pkgen.Open(c, laterPassphrase)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	noTemps(t, c.Dir)
	files, err := os.ReadDir(c.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if strings.HasPrefix(f.Name(), "master.") && f.Name() != pkgen.MasterFile {
			t.Errorf("left behind: %s", f.Name())
		}
	}
}

// An interrupted new epoch is told by verify, which has no lock to finish it.
func TestVerifyTellsAnUnfinishedEpoch(t *testing.T) {
	c := initPKG(t)
	before, err := os.ReadFile(filepath.Join(c.Dir, pkgen.ParamsFile))
	if err != nil {
		t.Fatal(err)
	}
	mustBegin(t, c, passphrase)
	if err := os.WriteFile(filepath.Join(c.Dir, pkgen.ParamsFile), before, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := pkgen.VerifyDir(c.Dir); !errors.Is(err, pkgen.ErrEpochUnfinished) {
		t.Errorf("error %v, want ErrEpochUnfinished", err)
	}
	if _, finished, err := pkgen.FinishEpoch(c); err != nil || !finished {
		t.Errorf("finished: %t, %v", finished, err)
	}
	checkEpoch2(t, c)
}

// Somebody who has a copy of the ledger, and master secrets of his own or of a
// later epoch, cannot forge an epoch, skip or repeat one, or change what was
// issued before it.
func TestAttackForgedEpochInLedger(t *testing.T) {
	m := master(t)
	setup := func(epoch uint32) *ibc.MasterSecret {
		s, err := ibc.Setup(rand.NewChaCha8([32]byte{byte(epoch + 7)}), epoch)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	second, third := setup(2), setup(3)
	step := func(from, to *ibc.MasterSecret) json.RawMessage {
		document, err := ibc.EpochDocument(to.Params())
		if err != nil {
			t.Fatal(err)
		}
		statement, err := from.Sign(ibc.KindEpoch, document)
		if err != nil {
			t.Fatal(err)
		}
		body, err := json.Marshal(pkgen.Fact{Type: "epoch", Params: to.Params(), Statement: hex.EncodeToString(statement)})
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
	type part struct {
		by     *ibc.MasterSecret
		bodies []json.RawMessage
	}
	first := initBody(t, m)
	for _, tc := range []struct {
		name  string
		parts []part
		line  int // 0: it holds
		cause error
	}{
		{"as it should be", []part{{m, []json.RawMessage{first}}, {m, []json.RawMessage{step(m, second)}}, {second, []json.RawMessage{step(second, third)}}}, 0, nil},
		{"signed by the new master secret only", []part{{m, []json.RawMessage{first}}, {m, []json.RawMessage{step(second, second)}}}, 3, ibc.ErrSignature},
		{"an epoch skipped", []part{{m, []json.RawMessage{first}}, {m, []json.RawMessage{step(m, third)}}}, 3, hashlog.ErrFormat},
		{"an epoch again", []part{{m, []json.RawMessage{first}}, {m, []json.RawMessage{step(m, second)}}, {second, []json.RawMessage{step(m, second)}}}, 5, hashlog.ErrFormat},
		{"the fact not covered by the secret before", []part{{m, []json.RawMessage{first}}, {second, []json.RawMessage{step(m, second)}}}, 4, hashlog.ErrHead},
		{"the secret before goes on", []part{{m, []json.RawMessage{first}}, {m, []json.RawMessage{step(m, second)}}, {m, []json.RawMessage{anchorBody(1)}}}, 6, hashlog.ErrHead},
		{"an issue in the epoch before", []part{{m, []json.RawMessage{first}}, {m, []json.RawMessage{step(m, second)}}, {second, []json.RawMessage{issueBody(t, "a", 1, 1)}}}, 5, ibc.ErrEpoch},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var log []byte
			var state hashlog.State
			for _, p := range tc.parts {
				data, next, err := state.Append(time.Unix(1e9, 0), func(document []byte) ([]byte, error) {
					return p.by.Sign(ibc.KindLedger, document)
				}, p.bodies...)
				if err != nil {
					t.Fatal(err)
				}
				log, state = append(log, data...), next
			}
			path := filepath.Join(t.TempDir(), "ledger.jsonl")
			if err := os.WriteFile(path, log, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := pkgen.ReadLedger(path, m.Params())
			if tc.line == 0 {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var line *hashlog.LineError
			if !errors.As(err, &line) || line.Line != tc.line || !errors.Is(err, tc.cause) {
				t.Errorf("error %v, want line %d: %v", err, tc.line, tc.cause)
			}
		})
	}
}

// A new epoch in shares, cut at every file operation: the old shares open the
// PKG, or the new ones do after the next run.
func TestNewEpochInSharesCutAnywhere(t *testing.T) {
	base := initPKG(t)
	alice, bob := newParty(t), newParty(t)
	shares := pkgen.SharesOptions{Threshold: 2, Holders: []pkgen.Holder{{Name: "alice", To: alice.to}, {Name: "bob", To: bob.to}}}
	begin := func(c pkgen.Config) error {
		p, err := pkgen.Open(c, passphrase)
		if err != nil {
			return err
		}
		return errors.Join(p.NewEpoch(pkgen.EpochOptions{Shares: &shares}), p.Close())
	}
	for cut := 1; ; cut += keyfiletest.Step {
		c := base
		c.Dir = filepath.Join(t.TempDir(), "pkg")
		copyDir(t, base.Dir, c.Dir)
		layer := keyfiletest.New(cut, keyfiletest.PowerLoss)
		c.Files = keyfile.On(layer)
		err := begin(c)
		c.Files = base.Files
		if layer.Cut() != errors.Is(err, keyfiletest.ErrCut) || !layer.Cut() && (err != nil || cut < 20) {
			t.Fatalf("cut at %d: error %v", cut, err)
		}
		ledger, _, err := pkgen.FinishEpoch(c)
		if err != nil {
			t.Fatalf("cut at %d, finished: %v", cut, err)
		}
		if ledger.Params.Epoch() == 1 {
			if err := begin(c); err != nil {
				t.Fatalf("cut at %d, begun again: %v", cut, err)
			}
		}
		if ledger, err = pkgen.VerifyDir(c.Dir); err != nil || ledger.Params.Epoch() != 2 {
			t.Fatalf("cut at %d, verified: %v", cut, err)
		}
		if _, err := pkgen.ReadSharing(c.Dir, ledger); err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if _, err := os.Lstat(filepath.Join(c.Dir, pkgen.MasterFile)); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("cut at %d: the master secret before is there", cut)
		}
		if !layer.Cut() {
			return
		}
	}
}
